"""Makes up users and what they chose from a catalogue, so that a fresh clone can train a recommender.

Guarantee: the same seed writes the same bytes; nobody made these choices. Items whose text starts with the same word are of one
kind; a user likes two kinds, and some items are more popular than others. Notes hold planted personal data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from random import Random

from pipeline.log_people import Person, make_person

_CHOICES_OF_USER = (4, 10)
_NOTES = (
    "{kind} again, please send it to {email}",
    "looking for something {kind} for the weekend",
    "my name is {name}, I read {kind} on the train",
    "a present; call me on {phone}",
    "more {kind} like the last one",
    "no idea, surprise me",
)


def choice_records(
    seed: int, users: int, catalogue: Mapping[str, str], names: dict[str, str]
) -> Iterator[tuple[str, list[str]]]:
    """(JSON line, planted values). names: source field by role: subject, record_id, label, text."""
    random = Random(seed)  # noqa: S311 (made-up data must be reproducible)
    kinds: dict[str, list[str]] = {}
    for item, text in catalogue.items():
        kinds.setdefault(text.split()[0].lower(), []).append(item)
    for number in range(users):
        person = make_person(random, number, "en")
        liked = random.sample(sorted(kinds), k=min(2, len(kinds)))
        for turn in range(random.randint(*_CHOICES_OF_USER)):
            kind = random.choice(liked if random.random() < 0.85 else sorted(kinds))
            items = kinds[kind]
            item = random.choices(items, weights=[1 / (1 + place) for place in range(len(items))])[0]
            note, planted = _note(kind, person, random)
            record = {names["subject"]: person.customer, names["record_id"]: f"c{number}-{turn}"}
            yield json.dumps({**record, names["label"]: item, names["text"]: note}), planted


def _note(kind: str, person: Person, random: Random) -> tuple[str, list[str]]:
    template = random.choice(_NOTES)
    values = {slot: person.values[slot] for slot in ("email", "name", "phone")}
    planted = [value for slot, value in values.items() if slot != "name" and f"{{{slot}}}" in template]
    return template.format(kind=kind, **values), planted
