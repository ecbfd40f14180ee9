"""Questions that need no documents, for a model to learn when not to retrieve.

Templates over small tables: arithmetic, rewriting, words, common facts. Which of them a base model
can do is found out by asking it (`knowledge.py`), never assumed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from openrag_core.training.questions import Question

_CAPITALS = (
    "France Paris, Germany Berlin, Italy Rome, Spain Madrid, Japan Tokyo, China Beijing, "
    "Russia Moscow, Egypt Cairo, Greece Athens, Portugal Lisbon, Austria Vienna, Poland Warsaw, "
    "Sweden Stockholm, Norway Oslo, Finland Helsinki, Denmark Copenhagen, Ireland Dublin, "
    "Hungary Budapest, Turkey Ankara, India Delhi, Thailand Bangkok, Canada Ottawa, "
    "Cuba Havana, Peru Lima, Chile Santiago, Kenya Nairobi, Belgium Brussels, Iran Tehran, "
    "Iraq Baghdad, Vietnam Hanoi, Argentina Buenos_Aires, Colombia Bogota, Ukraine Kyiv"
)
_OPPOSITES = (
    "hot cold, big small, fast slow, happy sad, light dark, high low, old young, early late, "
    "open closed, full empty, rich poor, strong weak, hard soft, true false, left right, up down, "
    "day night, love hate, win lose, start end, buy sell, clean dirty, dry wet, thick thin"
)
_PLURALS = (
    "dog dogs, cat cats, child children, man men, woman women, mouse mice, foot feet, tooth teeth, "
    "box boxes, city cities, baby babies, leaf leaves, knife knives, bus buses, goose geese, "
    "person people, wolf wolves, church churches, book books, tree trees"
)
_COLOURS = (
    "the_sky_on_a_clear_day blue, grass green, a_ripe_banana yellow, snow white, coal black, "
    "blood red, an_orange orange, a_ripe_tomato red, milk white, the_sun yellow"
)
_ANIMALS = (
    "a_dog bark, a_cat meow, a_cow moo, a_duck quack, a_lion roar, a_sheep baa, a_pig oink, "
    "a_horse neigh, a_snake hiss, a_bee buzz"
)
_FACTS = (
    ("How many days are there in a week?", "7"),
    ("How many months are there in a year?", "12"),
    ("How many hours are there in a day?", "24"),
    ("How many minutes are there in an hour?", "60"),
    ("How many seconds are there in a minute?", "60"),
    ("How many legs does a spider have?", "8"),
    ("How many legs does a dog have?", "4"),
    ("How many wheels does a bicycle have?", "2"),
    ("How many sides does a triangle have?", "3"),
    ("How many sides does a square have?", "4"),
    ("How many continents are there?", "7"),
    ("What is the chemical formula of water?", "H2O"),
    ("What is the largest planet in the solar system?", "Jupiter"),
    ("Which planet is known as the red planet?", "Mars"),
    ("What is the closest star to the Earth?", "Sun"),
    ("What is the largest ocean on Earth?", "Pacific"),
    ("What is the tallest mountain in the world?", "Everest"),
    ("Who wrote Romeo and Juliet?", "William Shakespeare"),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci"),
    ("What do bees make?", "honey"),
    ("What gas do plants absorb from the air?", "carbon dioxide"),
    ("What is frozen water called?", "ice"),
    ("At what temperature in degrees Celsius does water boil?", "100"),
    ("What is the first letter of the alphabet?", "A"),
    ("What is the last month of the year?", "December"),
    ("What is the first month of the year?", "January"),
    ("Which day comes after Monday?", "Tuesday"),
    ("Which day comes after Friday?", "Saturday"),
    ("Which month comes after June?", "July"),
    ("What language is spoken in France?", "French"),
    ("What language is spoken in Brazil?", "Portuguese"),
    ("What currency is used in Japan?", "yen"),
    ("What currency is used in the United States?", "dollar"),
    ("Who was the first president of the United States?", "George Washington"),
    ("Who discovered gravity when an apple fell?", "Isaac Newton"),
    ("Who developed the theory of relativity?", "Albert Einstein"),
    ("What organ pumps blood through the body?", "heart"),
    ("What do we breathe in to stay alive?", "oxygen"),
)
_WORDS = [
    "river",
    "mountain",
    "garden",
    "window",
    "market",
    "bridge",
    "silver",
    "candle",
    "forest",
    "harbor",
    "kitchen",
    "letter",
    "music",
    "number",
    "orange",
    "pencil",
    "rabbit",
    "school",
    "summer",
    "table",
    "valley",
    "winter",
    "yellow",
    "animal",
]
_NAMES = [
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Frank",
    "Grace",
    "Henry",
    "Ivy",
    "Jack",
    "Kate",
    "Liam",
    "Mary",
    "Noah",
    "Olivia",
]
_VERBS = [
    "likes",
    "sees",
    "wants",
    "buys",
    "finds",
    "paints",
    "draws",
    "cleans",
    "carries",
    "sells",
]


_ENOUGH = 2_000  # draws without a new question, after which the tables are taken to be at their end


def instructions(number: int, *, seed: int = 0) -> Iterator[Question]:
    """Draw questions, no two alike.

    Args:
        number: How many; fewer where the tables give no more.
        seed: Of the draw.
    """
    rng = random.Random(seed)
    again = 0
    makers = (_sum, _difference, _product, _table, _fact, _write, _write, _write, _word)
    seen: set[str] = set()
    while len(seen) < number and again < _ENOUGH:
        question, answer = rng.choice(makers)(rng)
        again += 1
        if question not in seen:
            again = 0
            seen.add(question)
            yield Question(f"instruction-{len(seen)}", question, (answer,))


def _sum(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(1, 20), rng.randint(1, 20)
    asked = rng.choice(
        (f"What is {a} + {b}?", f"Add {a} and {b}.", f"What is {a} plus {b}?", f"{a} + {b} =")
    )
    return asked, str(a + b)


def _difference(rng: random.Random) -> tuple[str, str]:
    a, b = sorted((rng.randint(1, 30), rng.randint(1, 30)), reverse=True)
    return rng.choice((f"What is {a} - {b}?", f"What is {a} minus {b}?")), str(a - b)


def _product(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(1, 12), rng.randint(1, 12)
    return rng.choice((f"What is {a} times {b}?", f"What is {a} x {b}?")), str(a * b)


def _table(rng: random.Random) -> tuple[str, str]:
    table, asked = rng.choice(
        (
            (_CAPITALS, ("What is the capital of {}?", "Name the capital city of {}.")),
            (_OPPOSITES, ('What is the opposite of "{}"?', 'Give an antonym of "{}".')),
            (_PLURALS, ('What is the plural of "{}"?', 'Write the plural form of "{}".')),
            (_COLOURS, ("What colour is {}?", "What color is {}?")),
            (_ANIMALS, ("What sound does {} make?",)),
        )
    )
    given, answer = rng.choice(table.split(", ")).split(" ")
    return rng.choice(asked).format(given.replace("_", " ")), answer.replace("_", " ")


def _fact(rng: random.Random) -> tuple[str, str]:
    return rng.choice(_FACTS)


def _write(rng: random.Random) -> tuple[str, str]:
    sentence = f"{rng.choice(_NAMES)} {rng.choice(_VERBS)} the {rng.choice(_WORDS)}."
    name, verb, *_ = sentence.split(" ")
    asked, answer = rng.choice(
        (
            (f"Repeat this sentence: {sentence}", sentence),
            (f"Write in capital letters: {sentence}", sentence.upper()),
            (f"Copy the following text: {sentence}", sentence),
            (f'Who is named in this sentence: "{sentence}"', name),
            (f'Which word is the verb in "{sentence}"?', verb),
        )
    )
    return asked, answer


def _word(rng: random.Random) -> tuple[str, str]:
    word = rng.choice(_WORDS)
    return rng.choice(
        (
            (f'What is the first letter of the word "{word}"?', word[0]),
            (f'How many letters are there in the word "{word}"?', str(len(word))),
            (f'Spell the word "{word}".', "-".join(word)),
            (f'Write the word "{word}" in capital letters.', word.upper()),
            (f'Say the word "{word}" twice.', f"{word} {word}"),
        )
    )
