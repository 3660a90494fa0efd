"""A lowered output limit takes the place of the stated one, wherever that stands, and is never of no use."""

import pytest
from tests.providers.test_plans import planned, sent


@pytest.mark.parametrize(
    ("kind", "fields", "expected", "gone"),
    [
        ("messages", {"max_tokens": 900}, {"max_tokens": 40}, ()),
        ("responses", {"max_output_tokens": 900}, {"max_output_tokens": 40}, ()),
        ("chat", {"max_completion_tokens": 900}, {"max_completion_tokens": 40}, ("max_tokens",)),
        ("chat", {"max_tokens": 900}, {"max_tokens": 40}, ("max_completion_tokens",)),
        ("chat", {"max_tokens": None}, {"max_completion_tokens": 40}, ()),
        ("generate", {"generationConfig": {"maxOutputTokens": 900}}, {"generationConfig": {"maxOutputTokens": 40}}, ()),
        (
            "stream",
            {"generation_config": {"max_output_tokens": 900, "top_k": 3}},
            {"generationConfig": {"maxOutputTokens": 40, "topK": 3}},
            ("generation_config",),
        ),
    ],
)
def test_the_stated_limit_is_replaced_where_it_stands(kind, fields, expected, gone):
    """One limit goes upstream, the lowered one, under the name that the request used; 900 is nowhere left."""
    body = sent(kind, 40, **fields)
    assert {name: body[name] for name in expected} == expected
    assert not [name for name in gone if body.get(name) is not None]
    assert "900" not in str(body)


@pytest.mark.parametrize(
    ("kind", "fields", "floor"),
    [
        ("messages", {"max_tokens": 9000}, 16),
        ("messages", {"max_tokens": 9000, "thinking": {"type": "enabled", "budget_tokens": 2048}}, 2064),
        ("messages", {"max_tokens": 9000, "thinking": {"type": "disabled"}}, 16),
        ("responses", {}, 16),
        ("chat", {"max_tokens": 9000}, 16),
        ("generate", {}, 16),
        ("generate", {"generationConfig": {"thinkingConfig": {"thinkingBudget": 512}}}, 528),
        ("generate", {"generationConfig": {"thinkingConfig": {"thinking_budget": -1}}}, 16),
        ("stream", {"generationConfig": {"thinkingConfig": {"thinkingLevel": "low"}}}, 16),
    ],
)
def test_no_limit_is_chosen_that_the_vendor_refuses_or_that_leaves_no_room_for_an_answer(kind, fields, floor):
    """At least sixteen tokens, beside what the request sets aside for thinking."""
    assert planned(kind, **fields).output_tokens_floor == floor
