"""The process in which output is redacted for `pipeline.redact_process`: JSON lines in, JSON lines out, nothing else.

Guarantee: it writes redacted text or an error's code, never what it was given; after an error a stream says nothing more.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    from pipeline.output_redactor import output_redactor, stream_redactors
    from privacy.errors import PrivetError
    from privacy.policy import Policy

    setup = json.loads(sys.stdin.readline())
    policy, secrets = Policy.model_validate(setup["policy"]), setup["secrets"]
    try:
        detector = _models(policy) if setup["models"] else None
        whole, streams = output_redactor(policy, secrets, detector), stream_redactors(policy, secrets, detector)
        stream = streams()
        _say({"ready": True})
    except PrivetError as error:
        _say(_fault(error))
        return
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if asked["do"] == "redact":
                found = whole.redact(asked["text"])
                _say({"text": found.text, "counts": found.counts})
            elif asked["do"] == "feed":
                _say({"text": stream.feed(asked["text"]), "counts": {}})
            else:
                rest = stream.close()
                _say({"text": rest, "counts": stream.counts})
                stream = streams()
        except PrivetError as error:
            _say(_fault(error))


def _models(policy: Any) -> Any:
    from privacy.detect import build_detector
    from privacy.policy_rules import detection_rules

    return build_detector(
        policy.languages, 0.0, detection_rules(policy, {}), presidio_recognizers=policy.pii.presidio_recognizers
    )


def _fault(error: Any) -> dict[str, Any]:
    return {"error": [error.code, error.cause, error.remedy]}


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
