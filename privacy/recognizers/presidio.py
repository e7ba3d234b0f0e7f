"""Our recognizers as ordinary Presidio recognizers, and an analyzer engine that never touches the network.

Guarantee: the language model is loaded from an installed package or not at all; only its entity pipe runs.
Assumption: imported inside functions only, so that `privacy` stays importable without Presidio and spaCy.
Source: Presidio 2.2.366 (`SpacyNlpEngine.load` downloads an unknown model, which is why it is overridden here).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from privacy.errors import EnvironmentFault
from privacy.recognizers.spec import Recognizer
from privacy.recognizers.view import View, view_of

if TYPE_CHECKING:
    from presidio_analyzer import BatchAnalyzerEngine, EntityRecognizer
    from presidio_analyzer.nlp_engine import NlpEngine

_UNUSED_PIPES = ["tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer"]  # the entity pipe has its own tok2vec


def as_presidio(recognizer: Recognizer, language: str) -> EntityRecognizer:
    """One of our recognizers as a Presidio EntityRecognizer; same spans and scores as `recognizer.scan`."""
    from presidio_analyzer import EntityRecognizer, RecognizerResult

    class Adapter(EntityRecognizer):  # type: ignore[misc, unused-ignore]
        def load(self) -> None:
            """Nothing to load."""

        def analyze(self, text: str, entities: list[str], nlp_artifacts: object = None) -> list[RecognizerResult]:
            if recognizer.entity not in entities:
                return []
            view = _view(text)
            metadata = {
                RecognizerResult.RECOGNIZER_NAME_KEY: recognizer.name,
                RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: self.id,
            }
            return [
                RecognizerResult(recognizer.entity, *view.original(start, end), score, recognition_metadata=metadata)
                for start, end, score in recognizer.scan(view)
            ]

    return Adapter(
        supported_entities=[recognizer.entity], name=recognizer.name, supported_language=language, version=recognizer.version
    )


@lru_cache(maxsize=4)
def _view(text: str) -> View:
    return view_of(text)


def require_model(model: str) -> None:
    """Raises EnvironmentFault E-DETECT-001 unless `model` is an installed package."""
    if importlib.util.find_spec(model) is None:
        raise EnvironmentFault(
            "E-DETECT-001",
            f"the language model {model} is not installed, and models are never downloaded at run time",
            "Install the pinned dependencies (make setup), which contain it",
        )


def english_engine(
    model: str, ner_score: float, ner_entities: Mapping[str, str], recognizers: Sequence[Recognizer]
) -> BatchAnalyzerEngine:
    """Presidio's batch analyzer for English: the model's entities, a small stock set, and `recognizers`."""
    require_model(model)
    from presidio_analyzer import AnalyzerEngine, BatchAnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.predefined_recognizers import CryptoRecognizer, SpacyRecognizer, UsItinRecognizer

    registry = RecognizerRegistry(
        recognizers=[
            SpacyRecognizer(supported_language="en", supported_entities=sorted(set(ner_entities.values()))),
            # The stock rules with a checksum or a closed range. Left out on purpose: cards (they accept Unix times), driver
            # licences, bank numbers and NHS numbers (they accept counters), URL and DATE_TIME (noise on logs).
            CryptoRecognizer(supported_language="en"),
            UsItinRecognizer(supported_language="en"),
            *(as_presidio(recognizer, "en") for recognizer in recognizers),
        ],
        supported_languages=["en"],
    )
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=_engine(model, ner_score, ner_entities), supported_languages=["en"])
    return BatchAnalyzerEngine(analyzer)


def _engine(model: str, ner_score: float, ner_entities: Mapping[str, str]) -> NlpEngine:
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine

    class EntityPipe(SpacyNlpEngine):  # type: ignore[misc, unused-ignore]
        def load(self) -> None:
            import spacy

            self.nlp = {"en": spacy.load(model, exclude=_UNUSED_PIPES)}  # type: ignore[assignment, unused-ignore]

    labels = ["CARDINAL", "DATE", "EVENT", "LANGUAGE", "LAW", "MONEY", "NORP", "ORDINAL", "ORG", "PERCENT", "PRODUCT"]
    engine = EntityPipe(
        models=[{"lang_code": "en", "model_name": model}],
        ner_model_configuration=NerModelConfiguration(
            model_to_presidio_entity_mapping=dict(ner_entities),
            labels_to_ignore=[*labels, "QUANTITY", "TIME", "WORK_OF_ART"],
            default_score=ner_score,
            low_score_entity_names=[],
        ),
    )
    engine.load()
    return engine
