"""The file's way to settings: every problem at once, each with its line, its key and its remedy."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from router.config import ConfigurationError, Settings, load, load_services, service_specs
from router.config.loading import MAX_FILE_BYTES

HASH = hashlib.sha256(b"sk-test").hexdigest()
SERVICE = "services:\n  - name: chat\n    url: http://chat:8000\n"

Load = Callable[..., Settings]
Refused = Callable[..., list[str]]


@pytest.fixture
def from_text(tmp_path: Path) -> Load:
    def read(text: str, environ: Mapping[str, str] | None = None) -> Settings:
        path = tmp_path / "backends.yaml"
        path.write_text(text)
        return load(path, environ or {})

    return read


@pytest.fixture
def refused(from_text: Load, tmp_path: Path) -> Refused:
    def read(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            from_text(text, environ)
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return read


def test_the_example_in_the_repository_is_valid_and_says_the_defaults() -> None:
    example = load(Path(__file__).parents[3] / "backends.yaml", {})
    assert example.model_copy(update={"services": ()}) == Settings()
    assert [spec.url for spec in service_specs(example)] == ["http://127.0.0.1:8001"]


def test_the_example_is_valid_with_its_commented_parts_too(from_text: Load) -> None:
    text = (Path(__file__).parents[3] / "backends.yaml").read_text()
    before, first, commented = text.partition("# organizations:\n")
    lines = (first + commented).splitlines()
    optional = [line[2:] for line in lines if re.match(r"# (  |\w+:$)", line)]
    read = from_text("\n".join([before, *optional]), {"ACME_KEY_SHA256": HASH})
    assert read.organizations[0].keys[0].sha256 == HASH
    assert read.routes[0].path == "/text2sql"
    assert read.aliases == {"gpt-4o": "Qwen/Qwen2.5-7B-Instruct"}


def test_all_problems_come_at_once_each_with_file_line_key_and_remedy(refused: Refused) -> None:
    problems = refused(
        "server:\n"
        "  port: 99999\n"
        "  hots: 127.0.0.1\n"
        "services:\n"
        "  - name: chat\n"
        "    url: chat:8000\n"
        "  - {name: chat, url: http://b}\n"
        "routing: {policy: fastest}\n"
    )
    assert problems == [
        "backends.yaml:2: server.port: must be at most 65535 (it is 99999)",
        "backends.yaml:3: server.hots: unknown key; did you mean host?",
        "backends.yaml:6: services[0].url: not an http or https URL; write http://host:port",
        "backends.yaml:7: services[1].name: a second 'chat'; give each its own name",
        (
            "backends.yaml:8: routing.policy: must be one of 'least_load' or 'round_robin'"
            " (it is 'fastest')"
        ),
    ]


@pytest.mark.parametrize("policy", ["prefix_cache", "consistent_hash"])
def test_a_policy_that_is_not_there_yet_is_told_with_the_other_problems(
    refused: Refused, policy: str
) -> None:
    assert refused(f"server: {{port: -1}}\nservices: []\nrouting:\n  policy: {policy}\n") == [
        "backends.yaml:1: server.port: must be at least 0 (it is -1)",
        (
            "backends.yaml:2: services: there are none and discovery is off; write at least one"
            " with name and url, or discovery.docker.enabled: true, or discovery.files"
        ),
        (
            f"backends.yaml:4: routing.policy: {policy} is not available in this release;"
            " write least_load or round_robin"
        ),
    ]


@pytest.mark.parametrize("number", ["1_000", "1,000", "'1 000'"])
def test_a_number_with_signs_between_its_digits_is_told_how_to_write_it(
    refused: Refused, number: str
) -> None:
    text = f"services:\n  - name: a\n    url: http://a\n    max_concurrency: {number}\n"
    (problem,) = refused(text)
    assert problem.endswith("must be a number without signs between its digits; write 1000")


def test_a_missing_key_is_told_at_the_line_of_what_lacks_it(refused: Refused) -> None:
    assert refused("services:\n  - name: a\n    url: http://a\n  - name: b\n") == [
        "backends.yaml:4: services[1].url: is missing; write url"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "backends.yaml:1: not YAML: "),
        ("- 1", "backends.yaml:1: must be a mapping"),
        ("a: 1\n---\nb: 2", "backends.yaml:2: a second document"),
        ("? [a]\n: 1", "backends.yaml:1: a key must be a text"),
        ("a: &x [*x]", "backends.yaml:1: the alias *x has no &x that ended before it"),
        ("a: *x", "backends.yaml:1: the alias *x has no &x"),
        ("[" * 10_000, "backends.yaml:1: nested more than 32 levels deep"),
        ("services:\n  - {name: a, url: ${URL}}", "backends.yaml:2: not YAML: "),
    ],
)
def test_what_is_no_document_is_one_problem(refused: Refused, text: str, problem: str) -> None:
    problems = refused(text)
    assert len(problems) == 1
    assert problems[0].startswith(problem)


@pytest.mark.parametrize(
    ("character", "name"), [("\0", "U+0000"), ("\x1b", "U+001B"), ("\ufffe", "U+FFFE")]
)
def test_a_character_that_yaml_does_not_allow_is_told_with_its_line(
    refused: Refused, character: str, name: str
) -> None:
    assert refused(f"# größer\n{SERVICE}  # {character}\n") == [
        f"backends.yaml:5: not YAML: the character {name} is not allowed; remove it"
    ]


def test_a_variable_without_quotes_in_a_flow_mapping_is_told_to_take_quotes(
    refused: Refused,
) -> None:
    assert 'write "${NAME}" with quotes' in refused("services: [{name: a, url: ${URL}}]")[0]


def test_a_key_written_twice_is_refused_with_both_lines(refused: Refused) -> None:
    assert refused(SERVICE + "    weight: 1\n    weight: 2\n") == [
        "backends.yaml:5: services[0].weight: is written twice, first in line 4; remove one of them"
    ]


def test_an_unknown_key_that_is_near_nothing_lists_what_is_known(refused: Refused) -> None:
    assert refused(SERVICE + "limits: {per_ip: {zzz: 1}}\n") == [
        "backends.yaml:4: limits.per_ip.zzz: unknown key; known here: requests_per_second, burst"
    ]


def test_a_secrets_file_key_is_among_the_known_ones(refused: Refused) -> None:
    assert "did you mean api_key_file?" in refused(SERVICE + "    api_key_fil: x\n")[0]


def test_a_merge_key_is_refused_with_what_to_do(refused: Refused) -> None:
    (problem,) = refused(SERVICE + "    <<: {weight: 2}\n")
    assert problem.endswith("merge keys are not understood here; write the keys out")


def test_a_tag_is_refused(refused: Refused) -> None:
    (problem,) = refused(SERVICE + "    gpu: !!python/name:os.system x\n")
    assert problem.startswith("backends.yaml:4: services[0].gpu: the tag !!python/name:os.system ")


def test_aliases_of_yaml_work(from_text: Load) -> None:
    read = from_text(
        "services:\n"
        "  - {name: a, url: http://a, models: &m [org/model]}\n"
        "  - {name: b, url: http://b, models: *m}\n"
    )
    assert read.services[1].models == ("org/model",)


def test_aliases_that_multiply_are_refused_before_they_cost_memory(refused: Refused) -> None:
    rows = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    problems = refused("\n".join(["a0: &a0 [lol, lol]", *rows]))
    assert "aliases or variables make the file too large or too deep" in problems[0]


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigurationError, match="larger than 4 MiB"):
        load(path, {})


@pytest.mark.parametrize("content", [b"\xff", b"a: \x00", b'a: "\\ud800"'])
def test_bytes_that_are_no_text_are_a_problem(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "backends.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        load(path, {})


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_file_that_cannot_be_read_is_a_problem_of_the_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read: .*; name another with --config"):
        load(tmp_path / name, {})


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "backends.yaml")
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / "backends.yaml", {})
    assert str(caught.value).endswith(
        "cannot be read: no regular file, so a reload could not read it again;"
        " name another with --config"
    )


@pytest.mark.parametrize("value", ["yes", "no", "on", "off", "y", "'true'", "1"])
def test_a_boolean_is_true_or_false_alone(refused: Refused, value: str) -> None:
    problems = refused(f"{SERVICE}discovery: {{docker: {{enabled: {value}}}}}\n")
    assert len(problems) == 1
    assert "must be true or false, without quotes" in problems[0]


@pytest.mark.parametrize("value", ["22:22", "0o100", "010", "0x10", "8000.0", "true"])
def test_a_whole_number_is_decimal_digits_alone(refused: Refused, value: str) -> None:
    problems = refused(f"{SERVICE}server: {{port: {value}}}\n")
    assert len(problems) == 1
    assert "server.port: must be a whole number, without quotes" in problems[0]


def test_sections_whose_lines_are_all_commented_out_mean_their_defaults(from_text: Load) -> None:
    read = from_text(SERVICE + "server:\norganizations:\nlimits:\n  per_ip:\naliases:\n")
    assert read == from_text(SERVICE)


def test_a_value_that_is_left_empty_is_refused(refused: Refused) -> None:
    (problem,) = refused(SERVICE + "server:\n  port:\n")
    assert problem.startswith("backends.yaml:5: server.port: is empty; write a value, or leave")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("services:\n  - name:\n    url: http://a\n", "services[0].name"),
        ("services:\n  - url:\n    name: a\n", "services[0].url"),
        (SERVICE + "organizations:\n  - id:\n", "organizations[0].id"),
        (SERVICE + "routes:\n  - path:\n    model: m\n", "routes[0].path"),
    ],
)
def test_a_key_without_a_default_is_not_told_to_be_left_out(
    refused: Refused, text: str, key: str
) -> None:
    (problem,) = refused(text)
    assert problem.endswith(f" {key}: is empty; write a value")


@pytest.mark.parametrize(
    ("text", "key"),
    [("services:\n  -\n", "services[0]"), (SERVICE + "aliases:\n  gpt-4o:\n", "aliases.gpt-4o")],
)
def test_what_is_empty_and_has_no_default_may_be_removed(
    refused: Refused, text: str, key: str
) -> None:
    (problem,) = refused(text)
    assert problem.endswith(f" {key}: is empty; write a value, or remove it")


@pytest.mark.parametrize("aliases", ["[a]", "x"])
def test_aliases_that_are_no_mapping_are_told_to_be_one(refused: Refused, aliases: str) -> None:
    (problem,) = refused(f"{SERVICE}aliases: {aliases}\n")
    assert problem.startswith(
        "backends.yaml:4: aliases: must be a mapping: lines of `key: value` below it"
    )


# -- variables ---------------------------------------------------------------------------------


def test_a_variable_is_put_in_and_takes_the_type_of_what_it_says(from_text: Load) -> None:
    read = from_text(
        "server:\n  port: ${PORT:-8000}\n"
        "services:\n  - name: chat\n    url: http://${HOST}:${PORT}\n"
        "    max_concurrency: ${MAX:-}\n",
        {"HOST": "chat", "PORT": "9000"},
    )
    assert read.server.port == 9000
    assert read.services[0].url == "http://chat:9000"
    assert read.services[0].max_concurrency is None


@pytest.mark.parametrize("key", ["0123", "12345", "1e5", "true"])
def test_a_secret_from_a_variable_stays_the_text_it_is(from_text: Load, key: str) -> None:
    read = from_text(SERVICE + "    api_key: ${KEY}\n", {"KEY": key})
    assert service_specs(read)[0].api_key == key


def test_a_variable_that_is_empty_takes_the_default(from_text: Load) -> None:
    read = from_text(SERVICE + "    group: ${GROUP:-big}\n", {"GROUP": ""})
    assert read.services[0].group == "big"


@pytest.mark.parametrize("written", ["${KEY:-}", '"${KEY:-}"'])
def test_a_secret_that_is_empty_is_none(from_text: Load, written: str) -> None:
    assert from_text(SERVICE + f"    api_key: {written}\n").services[0].api_key is None


def test_a_variable_that_is_not_set_is_named(refused: Refused) -> None:
    (problem,) = refused(SERVICE + "    api_key: ${KEY}\n")
    assert problem == (
        "backends.yaml:4: services[0].api_key: the environment variable KEY is not set; set it, "
        "or write ${KEY:-default} to go on without it"
    )


def test_two_dollars_are_a_plain_one(from_text: Load) -> None:
    read = from_text(SERVICE + "    api_key: $${KEY}$HOME\n")
    assert service_specs(read)[0].api_key == "${KEY}$HOME"


@pytest.mark.parametrize("text", ["${", "${}", "${A-b}", "${A B}", "${A:-${B}}", "${1}", "${A:?x}"])
def test_a_reference_of_another_form_is_refused(refused: Refused, text: str) -> None:
    problems = refused(SERVICE + f"    api_key: '{text}'\n", {"A": "a", "B": "b"})
    assert len(problems) == 1
    assert "write ${NAME}, ${NAME:-default}, or $${ for a plain ${" in problems[0]


# -- paths -------------------------------------------------------------------------------------


def test_a_null_in_the_folder_of_services_is_told_with_its_line(refused: Refused) -> None:
    assert refused(SERVICE + 'discovery:\n  files: "a\\0b"\n') == [
        "backends.yaml:5: discovery.files: no path holds a null; write one such as services.d"
    ]


def test_a_null_in_the_path_of_a_secret_is_told_as_one(refused: Refused) -> None:
    (problem,) = refused(SERVICE + '    api_key_file: "k\\0"\n')
    assert problem.endswith("(no path holds a null); write the path of a readable file")
    assert "\0" not in problem


def test_a_null_in_the_path_of_the_file_itself_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: no path holds a null"):
        load(tmp_path / "a\0b", {})


# -- secrets -----------------------------------------------------------------------------------


def test_secrets_are_read_from_files_beside_the_configuration(
    from_text: Load, tmp_path: Path
) -> None:
    (tmp_path / "api").write_text("sk-engine\n")
    (tmp_path / "hash").write_text(f"  {HASH.upper()}\n")
    (tmp_path / "ledger").write_text("memory://\n")
    read = from_text(
        SERVICE
        + "    api_key_file: api\n"
        + "server: {admin_key_sha256_file: hash}\n"
        + "ledger: {url_file: ledger}\n"
        + "organizations: [{id: acme, keys: [{id: k, sha256_file: hash}]}]\n"
    )
    assert service_specs(read)[0].api_key == "sk-engine"
    assert read.server.admin_key_sha256 == read.organizations[0].keys[0].sha256 == HASH
    assert read.ledger.path is None


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (None, "cannot be read (No such file or directory); write the path of a readable file"),
        (b" \n", "is empty; write the secret alone into it"),
        (b"x" * 100_000, "is larger than 64 KiB; write the secret alone into it"),
        (b"\xff", "cannot be read (not UTF-8 text); write the path of a readable file"),
    ],
)
def test_a_secret_file_that_is_of_no_use_is_the_only_problem_told(
    refused: Refused, tmp_path: Path, content: bytes | None, remedy: str
) -> None:
    if content is not None:
        (tmp_path / "hash").write_bytes(content)
    text = SERVICE + "organizations:\n- id: acme\n  keys:\n  - {id: k, sha256_file: hash}\n"
    assert refused(text) == [
        f"backends.yaml:7: organizations[0].keys[0].sha256_file: the file hash {remedy}"
    ]


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        (
            "server:\n  admin_key_sha256_file: held\n",
            "server.admin_key_sha256_file",
            "not a SHA-256; write the 64 hexadecimal digits that sha256sum prints",
        ),
        (
            "ledger:\n  url_file: held\n",
            "ledger.url_file",
            "not a ledger; write sqlite:///state/router.db or memory://",
        ),
    ],
)
def test_a_wrong_value_in_a_file_is_told_by_the_key_and_the_file_that_hold_it(
    refused: Refused, tmp_path: Path, text: str, key: str, remedy: str
) -> None:
    (tmp_path / "held").write_text("geheim\n")
    assert refused(SERVICE + text) == [
        f"backends.yaml:5: {key}: what the file held holds is wrong: {remedy}"
    ]


def test_a_hash_that_a_file_holds_a_second_time_is_told_with_the_file(
    refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "held").write_text(HASH)
    keys = f"{{id: k, sha256: {HASH}}}, {{id: l, sha256_file: held}}"
    (problem,) = refused(f"{SERVICE}organizations: [{{id: a, keys: [{keys}]}}]\n")
    assert "organizations[0].keys[1].sha256_file: what the file held holds is wrong: " in problem


def test_a_wrong_key_of_a_file_of_services_is_told_with_the_file_that_holds_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "held").write_text("two words")
    path = tmp_path / "more.yaml"
    path.write_text("- name: a\n  url: http://a\n  api_key_file: held\n")
    with pytest.raises(ConfigurationError) as caught:
        load_services(path, {})
    assert f"more.yaml:3: [0].api_key_file: what the file {tmp_path / 'held'} holds" in str(
        caught.value
    )


@pytest.mark.timeout(10)
def test_a_pipe_in_the_place_of_a_secret_is_refused(refused: Refused, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    (problem,) = refused(SERVICE + "    api_key_file: key\n")
    assert problem.startswith(
        "backends.yaml:4: services[0].api_key_file: the file key cannot be read"
        " (no regular file, so a reload could not read it again);"
    )


def test_a_secret_and_its_file_together_are_refused(refused: Refused) -> None:
    assert refused(SERVICE + "    api_key: a\n    api_key_file: b\n") == [
        "backends.yaml:5: services[0].api_key_file: stands beside api_key; remove one of them"
    ]


def test_no_secret_is_in_an_error_or_a_repr(from_text: Load, refused: Refused) -> None:
    hidden = "geheim"
    told = refused(
        "server: {admin_key_sha256: geheim, port: '${SECRET}'}\n"
        "ledger: {url: geheim}\n"
        "organizations: [{id: a, keys: [{id: k, sha256: geheim}, {id: l, sha256: geheim}]}]\n"
        "services:\n"
        "  - {name: a, url: 'http://u:geheim@a', api_key: 'geheim key'}\n"
        "  - {name: b, url: '${SECRET}', api_key: [geheim]}\n",
        {"SECRET": hidden},
    )
    assert len(told) == 10
    assert hidden not in "\n".join(told)
    read = from_text(
        SERVICE
        + f"    api_key: {hidden}\n"
        + f"server: {{admin_key_sha256: {HASH}}}\n"
        + f"organizations: [{{id: acme, keys: [{{id: k, sha256: {HASH}}}]}}]\n"
    )
    assert hidden not in repr(read)
    assert HASH not in repr(read)


# -- lists of services -------------------------------------------------------------------------


def test_a_file_of_services_alone_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text("- {name: a, url: http://a}\n- {name: b, url: http://b}\n")
    assert [service.name for service in load_services(path, {})] == ["a", "b"]


def test_an_empty_list_of_services_is_written_as_one(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text("[]\n")
    assert load_services(path, {}) == ()


@pytest.mark.parametrize("text", ["", "# none yet\n", "---\n", "null\n"])
def test_a_file_of_services_without_content_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"more\.yaml:1: is empty; write \[\]"):
        load_services(path, {})


def test_problems_of_a_file_of_services_are_told_by_its_own_keys(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text("- name: a\n  url: ftp://a\n- {name: a, url: http://b, api_key: '${X}'}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_services(path, {})
    assert [(p.line, p.key) for p in caught.value.problems] == [
        (2, "[0].url"),
        (3, "[1].api_key"),
        (3, "[1].name"),
    ]


def test_a_file_of_services_that_is_no_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text("name: a\nurl: http://a\n")
    with pytest.raises(ConfigurationError, match="must be a list"):
        load_services(path, {})


# -- anything at all ---------------------------------------------------------------------------

_WORDS = strategies.sampled_from(
    [
        "services", "server", "port", "name", "url", "aliases", "organizations", "keys", "models",
        ":", ": ", "- ", "\n", "\n  ", "\n    ", "{", "}", "[", "]", ",", "&a ", "*a", "!!int ",
        "!x ", "'", '"', "${", "${A}", "$${", "<<", "?", "|", ">", "---", "...", "%YAML 1.1", "#",
        "\t", "null", "true", "yes", "0", "010", "1:30", "-1", "1e400", ".inf", "http://a",
        "\\ud800", "\\UFFFFFFFF", "\x00", "\x85", "\u2028", "\ufeff", "é", "9" * 5000,
    ]
)  # fmt: skip
_TEXTS = strategies.one_of(
    strategies.text(max_size=200), strategies.lists(_WORDS, max_size=40).map("".join)
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=strategies.one_of(strategies.binary(max_size=200), _TEXTS.map(
    lambda text: text.encode(errors="surrogatepass")
)), variable=_TEXTS)  # fmt: skip
def test_whatever_the_file_holds_it_is_settings_or_a_configuration_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, variable: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    for read in (load, load_services):
        with contextlib.suppress(ConfigurationError):
            read(path, {"A": variable})


def test_the_expiry_of_a_key_is_the_first_instant_of_its_date(from_text: Load) -> None:
    read = from_text(
        SERVICE
        + "organizations:\n"
        + f"- {{id: a, keys: [{{id: k, sha256: {HASH}, expires: 2027-01-01}}]}}\n"
    )
    assert read.organizations[0].keys[0].expires == datetime(2027, 1, 1, tzinfo=UTC)
