"""Malformed, smuggled, oversized, slow or truncated: refused, unseen by engines, at nobody's cost.

Each case is sent while another client's stream is open; that stream goes on, and a third client is
served at once.
"""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from support.daemon import Daemon, service
from support.http import Client, Response, call, chat, encode
from support.upstream import Gate, ScriptedUpstream, Send
from support.wire import DONE, LAST_CHUNK, chat_answer, chunk, delta, stream_head

PATH = "/v1/chat/completions"
LINE = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\n"
JSON = b"content-type: application/json\r\n"
BODY = json.dumps(chat(user="bad")).encode()
SMUGGLED = encode("POST", PATH, chat(user="smuggled"))
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def router(upstream: ScriptedUpstream, start_module_daemon) -> Daemon:
    return start_module_daemon(
        {
            "server": {"header_timeout_s": 1, "body_timeout_s": 1, "max_body_mb": 1},
            "services": [service("engine", upstream.url, "tiny")],
        }
    )


@pytest.fixture(autouse=True)
def bystander(router: Daemon, upstream: ScriptedUpstream):
    """Whatever a test sends, this stream goes on, and a new client is served at once."""
    gate = Gate()

    def script(request):
        if request.json.get("user") != "bystander":
            return [Send(chat_answer())]
        return [Send(stream_head() + chunk(delta("a"))), gate,
                Send(chunk(delta("b") + DONE) + LAST_CHUNK)]  # fmt: skip

    upstream.script = script
    with Client(router.port) as client:
        client.send(encode("POST", PATH, chat(stream=True, user="bystander")))
        response = client.response()
        response.read_until(delta("a"))
        upstream.forget()
        yield
        assert all(r.json.get("user") == "another" for r in upstream.requests), upstream.requests
        assert call(router.port, "POST", PATH, chat(user="another")).status == 200
        gate.open()
        assert response.read().body == delta("a") + delta("b") + DONE


def send_raw(router: Daemon, data: bytes, *, finish: bool = False) -> list[Response]:
    """All answers to some bytes; the peer must close or be done within the client's timeout."""
    with Client(router.port, timeout=8) as client:
        try:
            client.send(data)
            if finish:
                client.finish_sending()
        except (ConnectionResetError, BrokenPipeError):
            pass  # refused before it was all read
        answers = []
        while (response := client.response()) is not None:
            answers.append(response.read())
            if response.header("connection") != "close":
                break
        return answers


def refused(answers: list[Response], statuses: range | set[int] = range(400, 500)) -> None:
    """No answer (closed), or a 4xx of the contract's form; nothing else."""
    for response in answers:
        assert response.status in statuses, response.head
        assert response.error["type"] == "invalid_request_error"
        assert response.error["message"]
        assert response.header("x-request-id")


# -- the framing of a request ----------------------------------------------------------------------


def with_length(length: bytes, body: bytes = BODY) -> bytes:
    return LINE + JSON + b"content-length: " + length + b"\r\n\r\n" + body


def chunked(body: bytes, *more: bytes) -> bytes:
    lines = b"".join(line + b"\r\n" for line in more)
    return LINE + JSON + b"transfer-encoding: chunked\r\n" + lines + b"\r\n" + body


HEX = b"%x" % len(BODY)
LENGTH = b"%d" % len(BODY)
MALFORMED = {
    "length-and-chunked": chunked(HEX + b"\r\n" + BODY + b"\r\n0\r\n\r\n", b"content-length: 4"),
    "chunked-and-length-smuggling": chunked(b"0\r\n\r\n" + SMUGGLED, b"content-length: 4"),
    "two-lengths": with_length(LENGTH + b"\r\ncontent-length: 3"),
    "two-lengths-smuggling": with_length(b"0\r\ncontent-length: " + LENGTH, SMUGGLED),
    "two-equal-lengths": with_length(LENGTH + b"\r\ncontent-length: " + LENGTH),
    "length-list": with_length(LENGTH + b", " + LENGTH),
    "negative-length": with_length(b"-1"),
    "signed-length": with_length(b"+" + LENGTH),
    "hexadecimal-length": with_length(b"0x10"),
    "underscored-length": with_length(b"1_0"),
    "huge-length": with_length(b"9" * 40),
    "empty-length": with_length(b""),
    "chunk-size-not-hex": chunked(b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk-size-negative": chunked(b"-5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk-size-huge": chunked(b"f" * 40 + b"\r\n" + BODY),
    "chunk-size-prefixed": chunked(b"0x" + HEX + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk-longer-than-said": chunked(b"5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk-line-endless": chunked(b"5;" + b"x" * MIB),
    "chunked-twice": LINE
    + JSON
    + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "chunked-not-last": LINE
    + JSON
    + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "coding-unknown": LINE + JSON + b"transfer-encoding: xchunked\r\n\r\n" + SMUGGLED,
    "coding-with-space": LINE + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "header-1MiB": LINE + b"x: " + b"y" * MIB + b"\r\ncontent-length: 2\r\n\r\n{}",
    "headers-10000": LINE + b"".join(b"x-%d: y\r\n" % n for n in range(10_000)) + b"\r\n",
    "target-1MiB": b"POST /" + b"a" * MIB + b" HTTP/1.1\r\nhost: h\r\n\r\n",
    "nul-in-header": LINE + b"x: a\x00b\r\ncontent-length: 0\r\n\r\n",
    "nul-in-header-name": LINE + b"x\x00y: a\r\ncontent-length: 0\r\n\r\n",
    "nul-in-target": b"POST /v1/chat\x00/completions HTTP/1.1\r\nhost: h\r\n\r\n",
    "cr-in-header": LINE + b"x: a\rb: c\r\ncontent-length: 0\r\n\r\n",
    "folded-header": LINE + b"x: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    "header-without-colon": LINE + b"nonsense\r\n\r\n",
    "no-request-line": b"NONSENSE\r\n\r\n",
    "version-9": b"POST /v1/chat/completions HTTP/9.9\r\nhost: h\r\n\r\n",
    "http2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls-hello": bytes.fromhex("16030100c6010000c20303") + b"\x00" * 190,
    "binary": bytes(range(256)) * 8,
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_framing_is_refused(router, case):
    refused(send_raw(router, MALFORMED[case], finish=True))


def test_what_follows_a_refused_request_is_not_served(router, upstream):
    """The rest of a connection whose framing is in doubt is nobody's request."""
    answers = send_raw(router, MALFORMED["chunked-and-length-smuggling"] + SMUGGLED, finish=True)
    assert len(answers) <= 1
    assert upstream.requests == []


# -- the body --------------------------------------------------------------------------------------

DEEP = b"[" * 200_000 + b"]" * 200_000
NOT_AN_OBJECT = {
    "empty": b"",
    "not-json": b"model=tiny",
    "cut": BODY[:-2],
    "two-documents": BODY + BODY,
    "trailing-garbage": BODY + b"x",
    "array": b"[" + BODY + b"]",
    "null": b"null",
    "string": b'"tiny"',
    "number": b"5",
    "nan": b'{"model": "tiny", "temperature": NaN}',
    "invalid-utf8": b'{"model": "tiny", "user": "\xff\xfe"}',
    "utf16": BODY.decode().encode("utf-16"),
    "nul-outside-a-string": b'{"model": "tiny", \x00"messages": []}',
    "nul-raw-in-a-string": b'{"model": "tiny", "user": "a\x00b"}',
    "deep-array": b'{"model": "tiny", "messages": ' + DEEP + b"}",
    "deep-object": b'{"model": "tiny", "x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    "deep-and-unclosed": b'{"model": "tiny", "messages": ' + b"[" * 900_000,
    "lone-surrogate": b'{"model": "tiny", "user": "\\ud800"}',
    "lone-surrogate-in-a-key": b'{"model": "tiny", "\\udfff": 1}',
    "lone-surrogate-in-the-model": b'{"model": "tiny\\ud800"}',
    "model-twice": b'{"model": "tiny", "model": "other"}',
    "model-twice-the-same": b'{"model": "tiny", "x": {"model": "a"}, "model": "tiny"}',
    "model-twice-escaped": b'{"model": "tiny", "mod\\u0065l": "other"}',
    "stream-twice": b'{"model": "tiny", "stream": false, "stream": true}',
}


@pytest.mark.parametrize("case", NOT_AN_OBJECT)
@pytest.mark.parametrize("path", [PATH, "/v1/embeddings"])
def test_a_body_that_is_not_one_clear_json_object_is_invalid_json(router, case, path):
    response = call(router.port, "POST", path, NOT_AN_OBJECT[case])
    assert response.status == 400
    assert response.error["code"] == "invalid_json"
    refused([response])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "missing_model"),
        (b'{"messages": []}', "missing_model"),
        (b'{"model": null}', "invalid_model"),
        (b'{"model": ""}', "invalid_model"),
        (b'{"model": 5}', "invalid_model"),
        (b'{"model": ["tiny"]}', "invalid_model"),
        (b'{"model": {"id": "tiny"}}', "invalid_model"),
        (b'{"model": true}', "invalid_model"),
    ],
)
def test_a_body_without_a_usable_model_is_told_so(router, body, code):
    response = call(router.port, "POST", PATH, body)
    assert (response.status, response.error["code"]) == (400, code)
    assert response.error["param"] == "model"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "max_output_tokens", "n"])
@pytest.mark.parametrize("value", [b"1" + b"0" * 400, b"-1" + b"0" * 400, b"1" + b"0" * 30])
def test_a_count_beyond_all_numbers_is_refused(router, field, value):
    body = b'{"model": "tiny", "messages": [], "' + field.encode() + b'": ' + value + b"}"
    refused([call(router.port, "POST", PATH, body)], {400})


def test_a_model_name_of_a_megabyte_is_not_echoed_whole(router):
    response = call(router.port, "POST", PATH, chat("x" * 900_000))
    assert (response.status, response.error["code"]) == (404, "model_not_found")
    assert len(response.body) < 4096


@pytest.mark.parametrize("model", ["a\r\nx-evil: 1", "\x00", "../../etc/passwd", "💥", " tiny"])
def test_an_odd_model_name_is_just_not_found(router, model):
    response = call(router.port, "POST", PATH, chat(model))
    assert (response.status, response.error["code"]) == (404, "model_not_found")
    assert response.header("x-evil") is None


# -- size ------------------------------------------------------------------------------------------


def test_a_body_that_says_it_is_too_large_is_413_before_it_is_sent(router):
    answers = send_raw(router, LINE + JSON + b"content-length: 9000000\r\n\r\n")
    assert [r.status for r in answers] == [413]
    assert answers[0].error["code"] == "request_too_large"


def test_a_chunked_body_that_grows_too_large_is_413(router):
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answers = send_raw(router, chunked(piece * 40 + b"0\r\n\r\n"))
    assert [r.status for r in answers] in ([413], [])
    refused(answers)


def test_a_body_of_exactly_the_limit_is_taken(router, upstream):
    body = json.dumps(chat(user="another", pad="")).encode()
    whole = body[:-2] + b"x" * (MIB - len(body)) + body[-2:]
    assert len(whole) == MIB
    assert call(router.port, "POST", PATH, whole).status == 200
    assert call(router.port, "POST", PATH, whole + b" ").status == 413


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_bomb_is_refused_and_not_unpacked(router, coding):
    bomb = {"gzip": gzip.compress, "deflate": zlib.compress}[coding](b" " * 200 * MIB)
    before = router.rss
    response = call(router.port, "POST", PATH, bomb, (("content-encoding", coding),))
    refused([response])
    assert router.rss - before < 32 * MIB


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [b"", LINE, LINE + b"x: y", with_length(LENGTH, b""), with_length(LENGTH, BODY[:-3]),
     chunked(b""), chunked(HEX + b"\r\n" + BODY[:9]), chunked(HEX + b"\r\n" + BODY + b"\r\n")],
    ids=["nothing", "half-a-head", "half-a-header", "no-body", "half-a-body", "no-chunk",
         "half-a-chunk", "no-last-chunk"],
)  # fmt: skip
def test_a_request_that_never_comes_is_ended_by_time(router, sent):
    """`header_timeout_s` and `body_timeout_s` are 1 here; the client would wait for 8."""
    refused(send_raw(router, sent), {408})


def test_a_request_that_trickles_in_is_ended_by_time(router):
    """A byte now and then does not renew the time."""
    with Client(router.port, timeout=0.2) as client:
        for byte in with_length(LENGTH) * 2:
            try:
                client.send(bytes([byte]))
                if not client.receive():
                    return
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                return
            break
        else:
            pytest.fail("a trickling head was never ended")


@pytest.mark.parametrize("cut", [LINE, with_length(LENGTH, BODY[:-3]), chunked(HEX + b"\r\n{")])
def test_a_request_whose_client_stops_sending_is_refused(router, cut):
    refused(send_raw(router, cut, finish=True))


def test_a_kept_connection_serves_again_after_a_refusal(router):
    """A refused body costs the client nothing but that request."""
    with Client(router.port) as client:
        assert client.request("POST", PATH, b"nonsense").read().status == 400
        assert client.request("POST", PATH, chat(user="another")).read().status == 200


# -- forms -----------------------------------------------------------------------------------------

FORM = (
    b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\ntiny\r\n'
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n'
)
MODEL_PART = FORM.split(b"--b\r\n")[1]
FORM_TYPE = "multipart/form-data; boundary=b"
BAD_FORMS = {
    "no-boundary": ("multipart/form-data", FORM),
    "wrong-boundary": ("multipart/form-data; boundary=c", FORM),
    "not-a-form": ("application/json", BODY),
    "empty": (FORM_TYPE, b""),
    "no-model": (FORM_TYPE, FORM.replace(b'"model"', b'"other"')),
    "empty-model": (FORM_TYPE, FORM.replace(b"tiny", b"")),
    "model-twice": (FORM_TYPE, b"--b\r\n" + MODEL_PART + FORM),
    "cut": (FORM_TYPE, FORM[:-8]),
    "model-not-utf8": (FORM_TYPE, FORM.replace(b"tiny", b"\xff\xfe")),
}


@pytest.mark.parametrize("case", BAD_FORMS)
def test_a_bad_form_is_refused(router, case):
    kind, body = BAD_FORMS[case]
    response = call(
        router.port, "POST", "/v1/audio/transcriptions", body, (("content-type", kind),)
    )
    refused([response], {400, 415})
