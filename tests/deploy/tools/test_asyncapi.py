"""docs/asyncapi.yaml by AsyncAPI's own schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[3]


def test_what_kafka_carries_is_described_as_asyncapi_wants_it(tools: Path) -> None:
    schema = json.loads((tools / "asyncapi-3.0.0.json").read_text(encoding="utf-8"))
    described: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text(encoding="utf-8"))
    judge = jsonschema.Draft7Validator(schema)
    assert [(list(error.absolute_path), error.message) for error in judge.iter_errors(described)] == []
    described["channels"]["results"]["adress"] = "a word that it does not know"
    assert not judge.is_valid(described)
