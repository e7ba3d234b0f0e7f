"""Presidio on both sides: our recognizers as ordinary Presidio recognizers, and Presidio's own by name in our engine.

Guarantee: the language model is loaded from an installed package or not at all; only its entity pipe runs. A Presidio
recognizer named in a policy is one of Presidio's own classes that read text and nothing else: no name makes us import other
code, load another model or call a service.
Assumption: imported inside functions only, so that `privacy` stays importable without Presidio and spaCy.
Context words are compared with tokens in lower case, because the lemmatizer and the tagger that it needs are left out.
Source: Presidio 2.2.366 (`SpacyNlpEngine.load` downloads an unknown model, which is why it is overridden here).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from privacy.entities import ENTITY_TYPES
from privacy.errors import EnvironmentFault, PolicyError
from privacy.findings import Finding
from privacy.recognizers.rampart import speakable
from privacy.recognizers.spec import Recognizer
from privacy.recognizers.view import FALLBACK_TYPE, View, view_of

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer
    from presidio_analyzer.nlp_engine import NlpEngine

_PREFIX = "presidio_analyzer.predefined_recognizers."
_PRESIDIO_REASON = "a recognizer of Presidio that the policy names"
_NER_SCORE = 0.6
_NER_ENTITIES = {
    "PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "ORG": "ORGANIZATION", "NORP": "NRP"
}  # fmt: skip
_NER_IGNORED = [
    "CARDINAL", "DATE", "EVENT", "LANGUAGE", "LAW", "MONEY", "ORDINAL", "PERCENT", "PRODUCT", "QUANTITY", "TIME", "WORK_OF_ART",
]  # fmt: skip
# Presidio's names of types that we have under another one; a type that we do not have is reported as PERSONAL_DATA.
_OUR_TYPES = {
    "IBAN_CODE": "IBAN", "UK_NHS": "NHS_NUMBER", "US_PASSPORT": "PASSPORT_NUMBER", "US_DRIVER_LICENSE": "DRIVER_LICENSE",
    "US_BANK_NUMBER": "ACCOUNT_NUMBER", "ABA_ROUTING_NUMBER": "ACCOUNT_NUMBER", "ES_NIF": "PERSONAL_DATA",
    "US_MBI": "MEDICAL_RECORD_NUMBER",
}  # fmt: skip
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


def nlp_engine(model: str) -> NlpEngine:
    """Presidio's spaCy engine with the entity pipe only. Raises EnvironmentFault E-DETECT-001 when the model is missing."""
    require_model(model)
    from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpArtifacts, SpacyNlpEngine

    class EntityPipe(SpacyNlpEngine):  # type: ignore[misc, unused-ignore]
        def load(self) -> None:
            import spacy

            self.nlp = {"en": spacy.load(model, exclude=_UNUSED_PIPES)}  # type: ignore[assignment, unused-ignore]

        def _doc_to_nlp_artifact(self, doc: Any, language: str) -> NlpArtifacts:
            entities, scores = self._get_updated_entities(list(doc.ents), [_NER_SCORE] * len(doc.ents))
            artifacts = NlpArtifacts(entities, doc, [], [], self, language, scores)
            artifacts.lemmas = [token.lower_ for token in doc]
            artifacts.tokens_indices = [token.idx for token in doc]
            artifacts.keywords = [word for word in artifacts.lemmas if word.isalnum()]
            return artifacts

    engine = EntityPipe(
        models=[{"lang_code": "en", "model_name": model}],
        ner_model_configuration=NerModelConfiguration(
            model_to_presidio_entity_mapping=dict(_NER_ENTITIES),
            labels_to_ignore=_NER_IGNORED,
            default_score=_NER_SCORE,
            low_score_entity_names=[],
        ),
    )
    engine.load()
    return engine


class NamedRecognizers:
    """Presidio's own recognizers, by class name, over English texts; findings carry our types and the class name."""

    def __init__(self, names: Sequence[str], engine: NlpEngine, score_threshold: float) -> None:
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry

        self._names = tuple(names)
        loaded = [_named(name) for name in self._names]
        self._needs_entities = any(type(recognizer).__name__ == "SpacyRecognizer" for recognizer in loaded)
        registry = RecognizerRegistry(recognizers=loaded, supported_languages=["en"])
        self._engine = engine
        self._analyzer = AnalyzerEngine(
            registry=registry, nlp_engine=engine, supported_languages=["en"], default_score_threshold=score_threshold
        )

    @property
    def facts(self) -> list[str]:
        """For the detector's version."""
        from importlib.metadata import version

        return [version("presidio-analyzer"), *self._names]

    def read(self, texts: Sequence[str]) -> list[list[Finding]]:
        """Candidates of each text; Presidio reads the normalised view, offsets are of the original."""
        views = [view_of(speakable(text)) for text in texts]
        return [[_as_finding(view, result) for result in self._analyze(view)] for view in views]

    def _analyze(self, view: View) -> Any:
        return self._analyzer.analyze(view.text, "en", nlp_artifacts=self._artifacts(view))

    def _artifacts(self, view: View) -> Any:
        if self._needs_entities:
            return self._engine.process_text(view.text, "en")
        pipe: Any = self._engine
        return pipe._doc_to_nlp_artifact(pipe.get_nlp("en").make_doc(view.text), "en")


def allowed_names() -> frozenset[str]:
    """Class names of Presidio's predefined recognizers that a policy may name."""
    from presidio_analyzer import PatternRecognizer, predefined_recognizers

    classes = {name: getattr(predefined_recognizers, name) for name in predefined_recognizers.__all__}
    return frozenset(
        name
        for name, found in classes.items()
        if isinstance(found, type) and (issubclass(found, PatternRecognizer) or name in ("PhoneRecognizer", "SpacyRecognizer"))
    )


def _named(name: str) -> EntityRecognizer:
    """Raises PolicyError E-DETECT-007 for a name that is not on the list."""
    from presidio_analyzer import predefined_recognizers

    short = name.removeprefix(_PREFIX)
    if short not in allowed_names():
        raise PolicyError(
            "E-DETECT-007",
            "a Presidio recognizer is named that is none of Presidio's own text recognizers",
            f"Name a class of {_PREFIX.rstrip('.')}, e.g. UsItinRecognizer",
        )
    recognizer: EntityRecognizer = getattr(predefined_recognizers, short)(supported_language="en")
    return recognizer


def _as_finding(view: View, result: Any) -> Finding:
    name = str((result.recognition_metadata or {}).get("recognizer_name", "presidio"))
    entity = _OUR_TYPES.get(result.entity_type, result.entity_type)
    if entity not in ENTITY_TYPES:
        entity = FALLBACK_TYPE
    start, end = view.original(result.start, result.end)
    return Finding(start, end, entity, min(result.score, 1.0), name, "presidio-analyzer", _PRESIDIO_REASON)
