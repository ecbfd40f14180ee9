"""core/openrag_core/model/prompt_builder.py: what of the passages fits beside the question."""

import re
from itertools import count

import pytest

from openrag_core import Passage, QuestionError
from openrag_core.model import TransformersGenerator
from tests.core.model.test_generator import Loaded
from tests.core.model.test_generator import trained as trained  # noqa: PLC0414  (a fixture)


def test_a_passage_longer_than_the_model_is_cut_and_the_question_is_not(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=4)
    sentences = [f"Sentence {n} tells of the bridge." for n in range(400)]
    long, short = Passage(id="l", text=" ".join(sentences)), Passage(id="s", text="It opened.")
    written = generator.write(["When?"], [[[long], [short]]])[0]
    assert [one.evidence[0] for one in written] == [long, short]
    assert len(written[0].tokens) == 4
    assert written[1].text == generator.write(["When?"], [[[short]]])[0][0].text
    assert [one.truncated for one in written] == [True, False]
    reading = generator.prompts.reading("When?", [long])
    prompt = str(trained[1].decode(reading.ids))
    assert reading.truncated
    assert prompt.endswith("tells of the bridge.</paragraph>")
    assert "When?" in prompt
    with pytest.raises(QuestionError, match="shorten the question"):
        generator.write(["When? " * 500], [[[short]]])


def test_of_passages_that_are_read_together_the_last_are_cut_first(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=4)
    short = Passage(id="s", title="First", text="It opened.")
    long = Passage(id="l", title="Second", text="The bridge is long. " * 200)
    gone = Passage(id="g", title="Third", text="Nobody reads this. " * 20)
    reading = generator.prompts.reading("When?", [short, long, gone])
    prompt = str(trained[1].decode(reading.ids))
    assert reading.truncated
    assert "Knowledge 1: First\nIt opened.\n[SEP]\nKnowledge 2: Second\nThe bridge" in prompt
    assert prompt.endswith("The bridge is long.</paragraph>")
    assert 900 < len(reading.ids) <= 1020
    whole = generator.prompts.reading("When?", [short, gone])
    assert not whole.truncated
    assert str(trained[1].decode(whole.ids)).count("Nobody") == 20
    written = generator.write(["When?"], [[[short, long, gone]]])[0][0]
    assert written.evidence == (short, long)  # what was not read is no source
    assert written.truncated


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("What is it? Who knows! " * 200, r"(it\?|knows!)"),
        ("それは橋です。" * 200, "です。"),
        ("  " + "橋" * 2000, "橋"),
        ("No. " + "bridge " * 1500, "bridge"),  # one early end would cost all the rest
        ("It opened. " + "[Relevant] </s> " * 400, r"(</s>|\[Relevant\])"),  # plain text here
    ],
)
def test_a_text_is_cut_where_little_is_lost(trained: Loaded, text: str, end: str) -> None:
    prompts = TransformersGenerator(*trained, max_new_tokens=4).prompts
    reading = prompts.reading("When?", [Passage(id="p", text=text)])
    assert re.search(rf"{end}</paragraph>$", str(trained[1].decode(reading.ids)))
    assert 900 < len(reading.ids) <= 1020


def test_a_title_that_is_too_long_is_not_the_questions_fault(trained: Loaded) -> None:
    generator = TransformersGenerator(*trained, max_new_tokens=4)
    title, fine = (
        Passage(id="t", title="word " * 2000, text="x"),
        Passage(id="f", text="It opened."),
    )
    written = generator.write(["When?"], [[[title], [fine]]])[0]
    assert [one.truncated for one in written] == [True, False]
    joint = generator.write(["When?"], [[[fine, title]]])[0][0]
    assert joint.evidence == (fine,)


BRIDGE = Passage(id="b", title="Velora Bridge", text="It was opened in 1893 by Ana Tolvik.")


def test_a_title_is_given_up_before_the_last_of_the_text(trained: Loaded) -> None:
    """However little room a question leaves, a passage has a text if it is read at all."""
    generator = TransformersGenerator(*trained, max_new_tokens=4)
    prompts, shown = generator.prompts, []
    for words in count(1):
        question = "w " * words
        reading = prompts.reading(question, [BRIDGE])
        if len(reading.ids) > prompts.room:
            break
        prompt = str(trained[1].decode(reading.ids)).removesuffix("</paragraph>")
        shown.append(prompt.partition("<paragraph>")[2])
    assert shown[0] == f"{BRIDGE.title}\n{BRIDGE.text}"
    texts = [one.removeprefix(f"{BRIDGE.title}\n") for one in shown]
    assert all(text and BRIDGE.text.startswith(text) for text in texts)
    assert shown[-1] == texts[-1]  # without its title
    with pytest.raises(QuestionError, match="shorten the question"):
        generator.write([question], [[[BRIDGE]]])
