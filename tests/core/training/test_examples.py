"""core/openrag_core/training/examples.py: rows that contrast what helps with what misleads."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from openrag_core import ConfigError
from openrag_core.training import Judgement, Mix, Question, Row, Text, make_rows, without_reflection
from openrag_core.training.examples import judged_row

GOLD = Text("Velora", "The bridge is long. Ana Tolvik opened it in 1931. It spans the Keth.")
CHAIN = (GOLD, Text("Ana Tolvik", "Ana was born in Orm."))
WRONG = tuple(Text(f"Other {n}", f"Nothing here. Sentence {n}. The end.") for n in range(4))
SINGLE = Question("q1", "Who opened the bridge?", ("Ana Tolvik", "Ana"), (GOLD,), WRONG)


def kinds(question: Question, mix: Mix | None = None) -> dict[str, Row]:
    rows = list(make_rows([question], mix))
    names = {"[Fully": "gold", "[Partially": "mixed", "[No support": "distractor"}
    return {
        next((kind for token, kind in names.items() if token in row.output), "no_retrieval"): row
        for row in rows
    }


def test_what_the_base_knows_is_learned_without_retrieval_alone() -> None:
    (row,) = kinds(replace(SINGLE, known=True), Mix(mixed=1)).values()
    assert row == Row(SINGLE.question, "[No Retrieval]Ana Tolvik[Utility:5]")


def test_each_kind_has_its_tokens_around_the_answer() -> None:
    made = kinds(SINGLE, Mix(mixed=1))
    assert made["gold"].output == (
        f"[Retrieval]<paragraph>Velora\n{GOLD.text}</paragraph>"
        "[Relevant]Ana Tolvik[Fully supported][Utility:5]"
    )
    assert made["mixed"].output.endswith(
        "</paragraph>[Relevant]Ana Tolvik[Partially supported][Utility:4]"
    )
    assert GOLD.text in made["mixed"].output
    assert re.search(r"Knowledge 1: .*\[SEP\]\nKnowledge 2: Oth|2: Vel", made["mixed"].output, re.S)
    assert re.fullmatch(
        r"\[Retrieval\]<paragraph>Other \d\n.*</paragraph>\[Irrelevant\]Ana Tolvik"
        r"\[No support / Contradictory\]\[Utility:1\]",
        made["distractor"].output,
        re.DOTALL,
    )
    assert {row.input for row in made.values()} == {SINGLE.question}


def test_a_chain_is_one_paragraph_and_its_distractors_are_as_many() -> None:
    made = kinds(replace(SINGLE, gold=CHAIN), Mix(mixed=1))
    for kind, gold in (("gold", 2), ("mixed", 1), ("distractor", 0)):
        output = made[kind].output
        assert output.count("[SEP]") == 1
        assert sum(passage.text in output for passage in CHAIN) == gold


def test_the_link_with_the_answer_is_never_replaced() -> None:
    keth = Text("Keth", "Orm lies in Keth.")
    chain = replace(SINGLE, answers=("Keth",), gold=(*CHAIN, keth))
    comparison = replace(SINGLE, answers=("yes",), gold=(*CHAIN, keth))
    kept: dict[str, Counter[str]] = {}
    for name, question in (("chain", chain), ("comparison", comparison)):
        asked = [replace(question, id=str(n)) for n in range(60)]
        outputs = [row.output for row in make_rows(asked, Mix(gold=0, distractor=0, mixed=1))]
        assert {output.count("[SEP]") for output in outputs} == {2}  # of three links one is another
        kept[name] = Counter(p.title for p in question.gold for o in outputs if p.text in o)
        assert kept[name].total() == 120
    assert kept["chain"]["Keth"] == 60
    assert min(kept["comparison"].values()) > 25  # yes and no stand in none of them


def test_passages_of_a_chain_come_in_any_order() -> None:
    first = Counter(
        kinds(replace(SINGLE, id=str(n), gold=CHAIN))["gold"].output.partition("\n")[0]
        for n in range(200)
    )
    assert len(first) == 2
    assert min(first.values()) > 70


@pytest.mark.parametrize("known", [False, None])
def test_only_what_the_base_knows_is_learned_without_retrieval(known: bool | None) -> None:
    assert "no_retrieval" not in kinds(replace(SINGLE, known=known))


def test_what_a_question_lacks_gives_no_row() -> None:
    assert set(kinds(replace(SINGLE, gold=()))) == {"distractor"}
    assert set(kinds(replace(SINGLE, distractors=()))) == {"gold"}


def test_shares_of_rows_are_kept_on_average() -> None:
    counts: Counter[str] = Counter()
    questions = [replace(SINGLE, id=str(n)) for n in range(400)]
    rows = list(make_rows(questions, Mix(gold=1.5, mixed=0.25, distractor=0), counts))
    assert len(rows) == counts.total()
    assert 550 < counts["gold"] < 650
    assert 70 < counts["mixed"] < 130
    assert counts["distractor"] == 0


def test_rows_are_the_same_every_time_and_others_with_another_seed() -> None:
    questions = [replace(SINGLE, id=str(n)) for n in range(20)]
    assert list(make_rows(questions)) == list(make_rows(questions))
    assert list(make_rows(questions)) != list(make_rows(questions, Mix(seed=1)))


def test_a_window_holds_the_answer_and_whole_sentences() -> None:
    sentences = [f"Sentence number {n} says little." for n in range(40)]
    sentences[23] = "Ana Tolvik opened it."
    long = Text("Velora", " ".join(sentences))
    found = []
    for n in range(50):
        question = replace(SINGLE, id=str(n), gold=(long,))
        output = kinds(question, Mix(window=25, whole=0))["gold"].output
        text = re.search(r"Velora\n(.*)</paragraph>", output, re.DOTALL)
        assert text is not None
        assert "Ana Tolvik opened it." in text[1]
        assert text[1] in long.text
        assert text[1].endswith(".")
        assert len(text[1].split()) <= 25
        found.append(text[1].index("Ana"))
    assert len(set(found)) > 2  # the answer's place says nothing
    assert (
        kinds(replace(SINGLE, gold=(long,)), Mix(window=25, whole=1))["gold"].output.count(
            "Sentence"
        )
        == 39
    )


def test_a_window_keeps_the_link_of_a_chain() -> None:
    text = " ".join(f"Sentence {n} says little." for n in range(20))
    bridge = Text("Velora", f"{text} It was opened by Orm Hale. {text}")
    end = Text("Orm Hale", f"{text} He was born in Keth.")
    question = replace(SINGLE, answers=("Keth",), gold=(bridge, end))
    output = kinds(question, Mix(window=20, whole=0))["gold"].output
    assert "It was opened by Orm Hale." in output
    assert "He was born in Keth." in output
    assert output.count("Sentence") < 10
    apart = replace(question, gold=(Text("Velora", text), end))
    assert text in kinds(apart, Mix(window=20, whole=0))["gold"].output  # what matters is unknown


@pytest.mark.parametrize("answer", ["no", "yes"])
def test_a_window_leaves_the_passage_of_a_yes_or_no_question_whole(answer: str) -> None:
    text = "Nobody knows it. Eyes saw it. No says the mayor, yes says Orm. It is long. It is old."
    question = replace(SINGLE, answers=(answer,), gold=(Text("Velora", text),))
    for seed in range(20):
        row = kinds(question, Mix(window=5, whole=0, seed=seed))["gold"]
        assert text in row.output


def test_a_window_holds_the_answer_as_words() -> None:
    text = "It was built in 1974 by Analise. It rained. It snowed. It has 7 arches. It is old."
    question = replace(SINGLE, answers=("7",), gold=(Text("Velora", text),))
    for seed in range(20):
        row = kinds(question, Mix(window=5, whole=0, seed=seed))["gold"]
        assert "It has 7 arches." in row.output
        assert "1974" not in row.output


def test_the_hardest_distractors_are_drawn() -> None:
    many = tuple(Text(f"Other {n:02}", f"Text {n:02}.") for n in range(12))
    rows = make_rows([replace(SINGLE, id=str(n), distractors=many) for n in range(100)])
    seen = {m for row in rows for m in re.findall(r"Other \d\d", row.output)}
    assert seen == {f"Other {n:02}" for n in range(5)}


def test_what_a_critic_says_is_what_is_learned() -> None:
    row = judged_row(SINGLE, GOLD, Judgement(relevant=True, support="partial", utility=3))
    assert row.output == (
        f"[Retrieval]<paragraph>Velora\n{GOLD.text}</paragraph>"
        "[Relevant]Ana Tolvik[Partially supported][Utility:3]"
    )
    row = judged_row(SINGLE, GOLD, Judgement(relevant=False, support="none", utility=1))
    assert row.output.endswith("[Irrelevant]Ana Tolvik[No support / Contradictory][Utility:1]")


def test_plain_rows_keep_gold_evidence_and_the_answer_alone() -> None:
    rows = make_rows([SINGLE, replace(SINGLE, known=True)], Mix(mixed=1))
    assert [row.output for row in without_reflection(rows)] == [
        f"[Retrieval]<paragraph>Velora\n{GOLD.text}</paragraph>Ana Tolvik",
        "[No Retrieval]Ana Tolvik",
    ]
    judged = [
        judged_row(SINGLE, GOLD, judgement)
        for judgement in (
            Judgement(relevant=True, support="full", utility=3),
            Judgement(relevant=True, support="full", utility=4),
            Judgement(relevant=True, support="partial", utility=5),
            Judgement(relevant=True, support="none", utility=5),
        )
    ]
    read = f"[Retrieval]<paragraph>Velora\n{GOLD.text}</paragraph>Ana Tolvik"
    assert [row.output for row in without_reflection(judged)] == [read, read]


@pytest.mark.parametrize("wrong", [{"gold": -1}, {"whole": 2}, {"window": 0}])
def test_shares_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        Mix(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not all 0"):
        Mix(gold=0, mixed=0, distractor=0, no_retrieval=0)


SENTENCES = Mix(gold=1, mixed=1, distractor=1, sentences=True)


def judged(question: Question, kind: str, mix: Mix = SENTENCES) -> list[tuple[str, bool]]:
    """What is read of the paragraph, and whether that is relevant."""
    row = kinds(question, mix)[kind]
    text = row.output.partition("<paragraph>")[2]
    return [(text[:end], relevant) for end, relevant in row.relevance]


def test_a_gold_passage_is_irrelevant_until_it_has_told_the_answer() -> None:
    assert judged(SINGLE, "gold") == [
        ("Velora\nThe bridge is long.", False),
        ("Velora\nThe bridge is long. Ana Tolvik opened it in 1931.", True),
        (f"Velora\n{GOLD.text}", True),
    ]
    assert [relevant for _, relevant in judged(SINGLE, "distractor")] == [False] * 3
    assert judged(SINGLE, "gold", replace(SENTENCES, sentences=False)) == []


def test_an_answer_may_begin_and_end_with_a_sign() -> None:
    cost = Text("Velora", "It cost much. Some say $5 (five). It stands.")
    found = judged(replace(SINGLE, answers=("$5 (five)",), gold=(cost,)), "gold")
    assert [relevant for _, relevant in found] == [False, True, True]


def test_between_two_answers_nobody_knows() -> None:
    twice = Text("Velora", "It is long. Ana saw it. It spans the Keth. Ana opened it. It stands.")
    found = judged(replace(SINGLE, gold=(twice,)), "gold")
    assert [(text.rpartition(". ")[2], relevant) for text, relevant in found] == [
        ("Velora\nIt is long.", False),
        ("Ana opened it.", True),
        ("It stands.", True),
    ]


@pytest.mark.parametrize("answers", [("no",), ("Yes", "no"), ("of nobody",), ("ridge",)])
def test_what_no_sentence_tells_is_judged_at_the_end_alone(answers: tuple[str, ...]) -> None:
    says_no = Text("Velora", "No bridge is long. It spans the Keth.")
    assert judged(replace(SINGLE, answers=answers, gold=(says_no,)), "gold") == [
        (f"Velora\n{says_no.text}", True)
    ]


def test_chains_and_mixed_passages_are_judged_as_a_whole() -> None:
    assert judged(SINGLE, "mixed") == []
    for kind in ("gold", "mixed", "distractor"):
        assert judged(replace(SINGLE, gold=CHAIN), kind) == []


def test_rows_of_distractors_may_end_with_the_judgement() -> None:
    (row,) = make_rows([SINGLE], Mix(gold=0, mixed=0, answer_distractors=False))
    assert row.output.endswith("</paragraph>[Irrelevant]")
    (whole,) = make_rows([SINGLE], Mix(gold=0, mixed=0))
    assert whole.output.startswith(row.output)
