"""Makes up a bank's chats and customers' opinions, so that a fresh clone can train on intents, answers and two-part labels.

Guarantee: the same seed writes the same bytes; nobody said any of it. Chats have the columns and intents of the MultiDoGO
finance chats (a turn with two intents carries both names), opinions a label "topic/sentiment". Both hold planted personal data.
Not covered: real people are less clear; accuracy on these says nothing about accuracy on yours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from random import Random

from pipeline.example_phrases import ABOUT, ASKS, JOINED, MOODS, SAYS, TOPICS
from pipeline.log_people import DISTINCTIVE, Person, make_person

_COLUMNS = ("conversationId", "turnNumber", "utteranceId", "utterance", "intent")
BANK_INTENTS = frozenset(SAYS) | frozenset(ASKS) | frozenset(JOINED)
BOTH = "<div>"  # between the names of two intents of one turn
OPINIONS = frozenset((topic, mood) for topic in TOPICS for mood in MOODS)


def bank_rows(seed: int, conversations: int) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """(row, planted values); the first row holds the names of the columns."""
    yield _COLUMNS, []
    random = Random(seed)  # noqa: S311 (made-up data must be reproducible)
    for number in range(conversations):
        person = make_person(random, number, "en")
        name = f"{random.getrandbits(64):016x}"
        for turn, intent in enumerate(_conversation(random)):
            text, planted = _said(intent, person, random)
            yield (name, str(turn), f"<CONV>{name}<TURN>{turn}", text, intent), planted


def opinion_records(
    seed: int, authors: int, labels: Sequence[str], separator: str, names: dict[str, str]
) -> Iterator[tuple[str, list[str]]]:
    """(JSON line, planted values). names: source field by role: subject, record_id, label, text."""
    random = Random(seed)  # noqa: S311 (made-up data must be reproducible)
    pairs = [tuple(label.split(separator, 1)) for label in labels]
    for number in range(authors):
        person = make_person(random, number, "en")
        for post in range(random.randint(1, 4)):
            topic, mood = random.choice(pairs)
            template = random.choice(MOODS[mood]).format(it=random.choice(TOPICS[topic]))
            if random.random() < 0.4:
                template += " " + random.choice(ABOUT)
            text, planted = _filled(template, person)
            record = {names["subject"]: person.customer, names["record_id"]: f"p{number}-{post}"}
            yield json.dumps({**record, names["label"]: separator.join((topic, mood)), names["text"]: text}), planted


def _conversation(random: Random) -> list[str]:
    """Intents of the customer's turns: a greeting, one or two matters with their answers to questions, and an end."""
    intents = ["openinggreeting"] if random.random() < 0.8 else []
    for _ in range(random.choice((1, 1, 2))):
        intents.append(random.choice(sorted(JOINED)) if random.random() < 0.1 else random.choice(sorted(ASKS)))
        intents += ["contentonly"] * random.randint(1, 3)
        intents.append(random.choice(("confirmation", "confirmation", "rejection")))
    if random.random() < 0.2:
        intents.append("outofdomain")
    return [*intents, *("thankyou", "closinggreeting")[: random.randint(0, 2)]]


def _said(intent: str, person: Person, random: Random) -> tuple[str, list[str]]:
    if intent in JOINED:
        template = " and ".join(random.choice(ASKS[part]) for part in intent.split(BOTH))
    else:
        template = random.choice({**SAYS, **ASKS}[intent])
    return _filled(template if random.random() < 0.6 else template.lower(), person)


def _filled(template: str, person: Person) -> tuple[str, list[str]]:
    planted = [value for slot, value in person.values.items() if slot in DISTINCTIVE and f"{{{slot}}}" in template]
    return template.format(**person.values), planted
