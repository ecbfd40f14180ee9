"""How often a follow-up question is made to stand alone, by the bundled model's dense base.

python benchmarks/conversations.py [CHECKPOINT]
"""

from __future__ import annotations

import sys

from openrag_core import ChatCondenser, Conversation, Message
from openrag_core.condenser import MAX_NEW_TOKENS
from openrag_core.model import BaseChat

# What was asked and answered, what is asked next, and a word that a stand-alone question must
# have; None where the next question stands alone already.
CASES = [
    ("Who opened the Velora Bridge?", "Ana Tolvik", "When was it opened?", "velora"),
    ("How high is the Keth Lighthouse?", "38 metres", "Who was its last keeper?", "keth"),
    ("Who was the last keeper of the Keth Lighthouse?", "Marta Venn", "How high is it?", "keth"),
    ("How much water does the water tower hold?", "1,200 m3", "When was it built?", "tower"),
    ("How long does the Sarn ferry take?", "25 minutes", "What does it cost?", "ferry"),
    ("When does the museum open?", "at ten", "And on Mondays?", "museum"),
    ("Who designed the Velora Bridge?", "Erik Holm", "How long is it?", "velora"),
    ("Who designed the Velora Bridge?", "Erik Holm", "Where was he born?", "holm"),
    ("Who wrote Dracula?", "Bram Stoker", "When did he die?", "stoker"),
    ("What is the largest planet?", "Jupiter", "How many moons does it have?", "jupiter"),
    ("Who founded Microsoft?", "Bill Gates", "What else did he do?", "gates"),
    ("Where is the Louvre?", "Paris", "How many people visit it each year?", "louvre"),
    ("What is photosynthesis?", "How plants make sugar.", "Where does it take place?", "photo"),
    ("Who painted Guernica?", "Pablo Picasso", "Who was his wife?", "picasso"),
    ("How long is the Nile?", "6,650 km", "Which countries does it flow through?", "nile"),
    ("Who won the 1998 World Cup?", "France", "Who did they beat?", "france"),
    ("What is the notice period?", "Three months", "Is it the same for managers?", "notice"),
    ("Thanks!", "You are welcome.", "How do I reset my password?", None),
    ("Who is the CEO of Apple?", "Tim Cook", "What is the boiling point of lead?", None),
    ("Who built the water tower?", "the town", "How high is the Keth Lighthouse?", None),
]


def main() -> None:
    """Condense every case, and count."""
    base = BaseChat(*(sys.argv[1:2] or ["bundled"]), max_new_tokens=MAX_NEW_TOKENS)
    condenser = ChatCondenser(base, cautious=True)
    conversations = [
        Conversation(asked, (Message("user", question), Message("assistant", answer)))
        for question, answer, asked, _ in CASES
    ]
    right = other = 0
    for (_, _, asked, word), text in zip(CASES, condenser.condense(conversations), strict=True):
        good = text == asked if word is None else word in text.lower()
        right += good
        other += not good and text != asked
        print(f"{'+' if good else '-'} {asked} -> {text}")
    print(f"{right} of {len(CASES)} stand alone, {other} became another question")


if __name__ == "__main__":
    main()
