"""What is not a document of plain values is refused in one line that names the place."""

import pytest

from seernet.config import load
from seernet.errors import ConfigError


def refusal(load_text, content):
    with pytest.raises(ConfigError) as caught:
        load_text(content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_numbers_are_read_as_yaml_1_2(load_text, params_text):
    text = params_text.replace("seed: 0", "seed: 010").replace("name: digits", "name: no")
    message = refusal(load_text, text)
    assert "`seed`" not in message  # YAML 1.1 and 1.2 both take 010 for an integer: 8, or 10
    assert "'no'" in message  # YAML 1.1 would say false
    assert load_text(params_text.replace("seed: 0", "seed: 010")).seed == 10
    rate = "  step_learning_rate: 1e-3\n  weight_decay"
    assert rate in params_text
    assert load_text(params_text).finetune.step_learning_rate == 0.001


def test_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(ConfigError, match="run from the repository root"):
        load(tmp_path / "params.yaml")


def test_byte_order_mark_is_ignored(load_text, params_text):
    assert load_text(b"\xef\xbb\xbf" + params_text.encode()) == load_text(params_text)


def test_duplicate_key_is_named_with_its_line(load_text, params_text):
    line = params_text.count("\n") + 1
    message = refusal(load_text, params_text + "seed: 1\n")
    assert f"line {line}:" in message
    assert '"seed"' in message


def test_duplicate_nested_key_is_named(load_text, params_text):
    assert '"folds"' in refusal(
        load_text, params_text.replace("  folds: 5", "  folds: 5\n  folds: 6")
    )


def test_two_bad_values_are_both_named(load_text, params_text):
    text = params_text.replace("seed: 0", "seed: 2020-01-01").replace("kappa: 0.5", "kappa: .nan")
    message = refusal(load_text, text)
    assert "`seed`" in message
    assert "`optimize.kappa`" in message


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (".nan", "finite"),
        ("-.inf", "finite"),
        ("1e999", "finite"),
        ("2020-01-01", "date 2020-01-01"),
        ("!!binary aGk=", "bytes"),
        ("!!set {a}", "set"),
        ("0x" + "f" * 5000, "20000 bits"),
        ("9007199254740993", "54 bits"),
    ],
)
def test_value_that_is_not_plain_is_named(load_text, params_text, value, reason):
    message = refusal(load_text, params_text.replace("kappa: 0.5", f"kappa: {value}"))
    assert "`optimize.kappa`: " in message
    assert reason in message


@pytest.mark.parametrize(
    ("key", "named"), [("1", "key int 1"), ("~", "key null"), ("2020-01-01", "key date 2020-01-01")]
)
def test_key_that_is_not_text_is_named_with_its_section(load_text, params_text, key, named):
    message = refusal(load_text, params_text.replace("  small:", f"  {key}:"))
    assert f"{named} of `budgets` must be text" in message


def test_aliases_that_expand_without_end_are_refused(load_text):
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "aliases" in refusal(load_text, bomb)
    assert "aliases" in refusal(load_text, "a: &a [*a]")


def test_aliases_of_ordinary_size_are_accepted(load_text, params_text):
    text = params_text.replace("  small:", "  small: &small").replace(
        "  medium:\n    bops_ratio: 0.01", "  medium: *small"
    )
    budgets = load_text(text).budgets
    assert budgets["medium"] == budgets["small"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "# only a comment\n",
        "- a\n",
        "text",
        "\tseed: 1",
        "a: 1\n---\nb: 1",
        "%YAML 3.0\n---\na: 1",
        "[" * 3000,
        "a: {" * 3000,
        "? [1, 2]\n: 3",
        "? {a: 1}\n: 3",
        "a: !!bool maybe",
        "a: !!int ''",
        "a: !!float x",
        "a: !!timestamp x",
        "a: !!python/object/apply:os.getcwd []",
        "a: " + "9" * 5000,
        "a: 2020-13-45",
        "a: 0001-01-01T00:00:00+23:59",
        "a: *missing",
        "<<: 3",
        '"a\\nb": 1',
        "a: " + "x" * 1_000_001,
        b"\x00\x01\x02",
        b"\xff\xfe\x00\x00",
        bytes(range(256)),
    ],
    ids=lambda content: repr(content)[:24],
)
def test_what_is_no_parameters_file_is_refused(load_text, content):
    assert "params.yaml" in refusal(load_text, content)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("2020-13-45", "month"),
        ("!!bool maybe", "'maybe'"),
        ("9" * 5000, "4300 digits"),
        ("a\x1fb", "U+001F"),
        (b"\xe9", "UTF-8"),
        ("[" * 3000, "depth"),
    ],
)
def test_malformed_value_is_refused_with_its_line(load_text, params_text, value, says):
    before, rule, after = params_text.partition("  kappa: ")
    assert rule
    value = value if isinstance(value, bytes) else value.encode()
    after = after.partition("\n")[2]
    message = refusal(load_text, f"{before}{rule}".encode() + value + f"\n{after}".encode())
    assert f", line {before.count(chr(10)) + 1}" in message
    assert says in message
