from typing import Any

import pytest

from gardener_dagster.local.parser.fields import MisfitError, Record

FIELDS: list[dict[str, Any]] = [
    {"name": "text", "type": "STRING"},
    {"name": "whole", "type": "INTEGER"},
    {"name": "share", "type": "FLOAT"},
    {"name": "yes", "type": "BOOLEAN"},
    {"name": "at", "type": "TIMESTAMP"},
    {"name": "inner", "type": "RECORD", "fields": [{"name": "whole", "type": "INTEGER"}]},
    {"name": "numbers", "type": "INTEGER", "mode": "REPEATED"},
    {
        "name": "inners",
        "type": "RECORD",
        "mode": "REPEATED",
        "fields": [{"name": "text", "type": "STRING"}],
    },
]
RECORD = Record(FIELDS)


@pytest.mark.parametrize(
    "value",
    [
        {"text": "é\u2028"},
        {"whole": -(2**63)},
        {"whole": 2**63 - 1},
        {"share": 1},
        {"share": 1.5e300},
        {"yes": False},
        {"at": "2020-03-18T00:19:54.385809610Z"},
        {"at": "2020-03-18T00:19:54+02:00"},
        {"at": "0001-01-01T00:00:00Z"},
        {"inner": {}},
        {"inner": {"whole": 1}},
        {"numbers": []},
        {"inners": [{"text": "a"}, {}]},
    ],
)
def test_what_fits_is_kept_as_it_is(value: dict[str, Any]) -> None:
    assert RECORD.fit(value) == value


def test_fields_that_the_schema_lacks_are_left_out_on_every_level() -> None:
    value = {"other": 1, "inner": {"other": 1, "whole": 2}, "inners": [{"other": {}, "text": "a"}]}
    assert RECORD.fit(value) == {"inner": {"whole": 2}, "inners": [{"text": "a"}]}


def test_null_is_left_out() -> None:
    value = {"text": None, "inner": None, "numbers": [1, None, 2], "inners": None}
    assert RECORD.fit(value) == {"numbers": [1, 2]}


def test_the_case_of_a_name_does_not_matter() -> None:
    assert RECORD.fit({"TEXT": "a", "Inner": {"wHole": 1}}) == {"text": "a", "inner": {"whole": 1}}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"text": 1}, "text"),
        ({"text": {}}, "text"),
        ({"whole": "1"}, "whole"),
        ({"whole": 1.0}, "whole"),
        ({"whole": True}, "whole"),
        ({"whole": 2**63}, "whole"),
        ({"share": "1"}, "share"),
        ({"share": True}, "share"),
        ({"share": float("inf")}, "share"),
        ({"share": 10**400}, "share"),
        ({"yes": 1}, "yes"),
        ({"at": "yesterday"}, "at"),
        ({"at": 1}, "at"),
        ({"at": "2020-02-30T00:00:00Z"}, "at"),
        ({"at": "2020-03-18T00:19:54"}, "at"),
        ({"at": "2020-03-18T24:00:00Z"}, "at"),
        ({"at": "2020-03-18T00:19:54+15:00"}, "at"),
        ({"at": "２０２０-03-18T00:19:54Z"}, "at"),
        ({"inner": []}, "inner"),
        ({"inner": {"whole": "1"}}, r"inner\.whole"),
        ({"numbers": 1}, "numbers"),
        ({"numbers": ["1"]}, "numbers"),
        ({"inners": {"text": "a"}}, "inners"),
        ({"inners": [{"text": 1}]}, r"inners\.text"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_it(value: dict[str, Any], path: str) -> None:
    with pytest.raises(MisfitError, match=f"^{path} is .*, expected "):
        RECORD.fit(value)


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_what_is_no_object_does_not_fit(value: Any) -> None:
    with pytest.raises(MisfitError, match="expected an object"):
        RECORD.fit(value)


def test_a_long_value_is_cut_in_the_error() -> None:
    with pytest.raises(MisfitError) as caught:
        RECORD.fit({"whole": "x" * 10_000})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "time",
    [
        "0001-01-01T00:00:00+05:00",
        "0001-01-01T00:00:00.000000001+00:01",
        "9999-12-31T23:59:59-00:01",
        "9999-12-31T20:00:00-05:00",
        "0000-01-01T00:00:00Z",
    ],
)
def test_d38_a_time_out_of_bigquerys_range_does_not_fit(time: str) -> None:
    with pytest.raises(
        MisfitError, match=r"^at is .*, expected a time as in RFC 3339, in UTC from"
    ):
        RECORD.fit({"at": time})


@pytest.mark.parametrize(
    "time",
    ["0001-01-01T05:00:00+05:00", "9999-12-31T23:59:59.999999Z", "9999-12-31T18:59:59-05:00"],
)
def test_d38_the_ends_of_the_range_fit(time: str) -> None:
    assert RECORD.fit({"at": time}) == {"at": time}
