"""What the tools take, and what a wrong argument gets."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.shared.inbound import find_invalid_x_mcp_header, x_mcp_header_map

from mcp_server import arguments, settings
from mcp_server.arguments import MODELS, CreateContextArguments, RunCodeArguments, parse, schemas
from mcp_server.errors import InvalidArgument
from mcp_server.service import limits
from mcp_server.settings import Settings


def test_nothing_but_code_is_needed() -> None:
    assert parse("run_code", RunCodeArguments, {"code": "1"}) == RunCodeArguments(code="1")


def test_null_means_the_default() -> None:
    given = dict.fromkeys(("context_id", "timeout", "envs", "wait", "interrupt", "max_output_chars"))
    assert parse("run_code", RunCodeArguments, {"code": "1", **given}) == RunCodeArguments(code="1")
    assert parse("create_context", CreateContextArguments, {"cwd": None, "envs": None}) == CreateContextArguments()


def test_numbers_may_come_as_text_since_models_send_them_so() -> None:
    given = {"code": "1", "timeout": "30", "max_output_chars": "2000", "interrupt": "true"}
    asked = parse("run_code", RunCodeArguments, given)
    assert (asked.timeout, asked.max_output_chars, asked.interrupt) == (30.0, 2000, True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "run_code needs code: Python source, as a string."),
        ({"code": None}, "run_code needs code: Python source, as a string."),
        ({"code": 3}, "code must be Python source, as a string; code is 3."),
        ({"code": "1", "timeout": "soon"}, 'timeout must be a number of seconds; timeout is "soon".'),
        (
            {"code": "1", "envs": {"A": 1}},
            'envs must be an object of strings, for example {"MODE": "fast"}; envs.A is 1.',
        ),
        (
            {"code": "1", "envs": "A=1"},
            'envs must be an object of strings, for example {"MODE": "fast"}; envs is "A=1".',
        ),
        ({"code": "1", "interrupt": "perhaps"}, 'interrupt must be true or false; interrupt is "perhaps".'),
        ({"code": "1", "max_output_chars": 1.5}, "max_output_chars must be a whole number; max_output_chars is 1.5."),
        (
            {"code": "1", "language": "python"},
            'run_code has no argument "language". '
            "It takes code, context_id, timeout, envs, wait, interrupt, max_output_chars.",
        ),
    ],
)
def test_a_wrong_argument_is_named_with_what_it_must_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse("run_code", RunCodeArguments, given)
    assert str(caught.value) == said


def test_a_long_wrong_value_is_not_repeated_whole() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse("run_code", RunCodeArguments, {"code": ["x" * 100_000]})
    assert len(str(caught.value)) < 200


def test_the_schemas_and_the_models_name_the_same_arguments() -> None:
    for tool, schema in schemas(Settings()).items():
        model = MODELS[tool]
        assert list(schema["properties"]) == list(model.model_fields)
        required = [name for name, field in model.model_fields.items() if field.is_required()]
        assert schema.get("required", []) == required
        assert set(model.model_fields) <= set(arguments._EXPECTED)


def test_every_argument_has_one_plain_type_a_description_and_if_optional_a_null_and_a_default() -> None:
    for schema in schemas(Settings()).values():
        for name, argument in schema["properties"].items():
            assert isinstance(argument["type"], str)
            assert argument["description"]
            assert not {"anyOf", "oneOf", "allOf", "$ref"} & set(argument)
            optional = name not in schema.get("required", [])
            assert argument.get("nullable", False) is optional
            assert ("default" in argument) is optional


def test_the_schemas_show_the_defaults_in_force() -> None:
    properties = schemas(Settings(timeout_s=30, wait_s=5, max_output_chars=1_700))["run_code"]["properties"]
    assert [properties[name]["default"] for name in ("timeout", "wait", "max_output_chars")] == [30, 5, 1_700]


def test_a_gateway_can_route_by_the_context() -> None:
    for tool in ("run_code", "delete_context"):
        schema = schemas(Settings())[tool]
        assert find_invalid_x_mcp_header(schema) is None
        assert x_mcp_header_map(schema) == {("context_id",): "Context-Id"}


def test_the_settings_and_the_service_agree_on_the_longest_report() -> None:
    assert settings.MAX_OUTPUT_CHARS == limits.MAX_OUTPUT_CHARS
    bounds = {type(bound).__name__: bound for bound in Settings.model_fields["max_output_chars"].metadata}
    assert bounds["Ge"].ge == limits.MIN_OUTPUT_CHARS
