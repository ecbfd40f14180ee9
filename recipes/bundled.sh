#!/bin/sh
# Trains the bundled model anew: three runs, the mean of what they end with, from there a fourth, and
# the mean of its two ends, which is runs/bundled. Stopped, the same command goes on.
#
# OPENRAG_TEST_DATA=... sh recipes/bundled.sh
set -eu

recipes=$(dirname "$0")
data=runs/data

rows() {  # RUN KIND, then options of `openrag data build`
    file=$data/$1/$2
    shift 2
    [ -e "${file}_rows.jsonl" ] ||
        openrag data build "$file.jsonl" -o "${file}_rows.jsonl" "$@"
}

train() {  # RUN RECIPE OUT
    cp "$recipes/$2.yaml" "$data/$1/"
    resume=
    [ ! -d "$3/checkpoints" ] || resume=--resume
    [ -d "$3/model" ] || openrag train "$data/$1/$2.yaml" "$3" $resume
}

average() {  # OUT MODEL...
    out=$1
    shift
    [ -d "$out" ] || python "$recipes/average.py" "$@" "$out"
}

[ -e $data/passages.jsonl ] || python "$recipes/bundled_questions.py" $data

rows first single --base bundled --mine $data/passages.jsonl --window 55 --mixed 0.2 --distractor 0.6
rows first chains --base bundled --window 55 --mixed 0.5 --distractor 0.5 --seed 1
train first smollm2-135m runs/first

rows second single --window 55 --whole 0.5 --gold 0.8 --mixed 0.1 --distractor 1.1
rows second chains --window 55 --whole 0.5 --mixed 0.3 --distractor 0.4
head -n 60 $data/second/single.jsonl > $data/second/known.jsonl
rows second known --base bundled --min-no-retrieval 0.9
train second smollm2-135m-second runs/second

average runs/average runs/first/model runs/second/model

rows third single --mine $data/passages.jsonl --window 55 --whole 0.4 --gold 0.9 --mixed 0.15 \
    --distractor 0.9
rows third chains --window 55 --whole 0.5 --gold 0.6 --mixed 0.16 --distractor 0.2
train third smollm2-135m-third runs/third

average runs/mean runs/first/model runs/second/model runs/third/model

rows fourth single --window 55 --whole 0.5 --gold 0.9 --mixed 0.12 --distractor 0.9 --seed 3 \
    --reader runs/mean
rows fourth chains --window 55 --whole 0.5 --gold 0.7 --mixed 0.16 --distractor 0.2 --seed 3 \
    --reader runs/mean
head -n 60 $data/second/single.jsonl > $data/fourth/known.jsonl
rows fourth known --base bundled --min-no-retrieval 0.75 --reader runs/mean
train fourth smollm2-135m-fourth runs/fourth

average runs/bundled runs/mean runs/fourth/model
