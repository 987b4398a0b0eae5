"""Multipart forms: the `model` part is found and replaced, and not one other byte is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import BadRequest, InvalidModel, MissingModel
from router.openai.multipart import read_model, splice_model

BOUNDARY = "----x1Y2"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
PLAIN = b'Content-Disposition: form-data; name="model"'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'


def form(*parts: tuple[bytes, bytes], boundary: str = BOUNDARY) -> bytes:
    """A form of (headers, content) parts, as RFC 7578 writes it."""
    line = b"--" + boundary.encode()
    body = b"".join(b"%b\r\n%b\r\n\r\n%b\r\n" % (line, *part) for part in parts)
    return body + line + b"--\r\n"


def model_of(body: bytes, content_type: str = TYPE) -> str:
    return read_model(body, content_type).model


@pytest.mark.parametrize(
    "content_type",
    [
        TYPE,
        f'multipart/form-data; boundary="{BOUNDARY}"',
        f"multipart/form-data; charset=utf-8; boundary={BOUNDARY}",
        f"multipart/form-data; boundary={BOUNDARY}; charset=utf-8",
        f"Multipart/Form-Data; BOUNDARY={BOUNDARY}",
        f"multipart/form-data;boundary={BOUNDARY}",
    ],
)
def test_the_boundary_is_read_quoted_or_not_wherever_it_stands(content_type):
    assert model_of(form((PLAIN, b"whisper")), content_type) == "whisper"


def test_a_quoted_boundary_may_hold_what_a_bare_one_may_not():
    body = form((PLAIN, b"whisper"), boundary="a b;c")
    assert model_of(body, 'multipart/form-data; boundary="a b;c"') == "whisper"


@pytest.mark.parametrize(
    "headers",
    [
        b"content-disposition: form-data; name=model",
        b'CONTENT-DISPOSITION:form-data;name="model"',
        b'Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"\r\nX-A: b',
        b'Content-Disposition: form-data; name="model"\r\nContent-Type: text/plain; name="file"',
    ],
)
def test_the_part_may_have_headers_of_its_own(headers):
    assert model_of(form((FILE, b"RIFF"), (headers, b"whisper"))) == "whisper"


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_place_of_the_part_does_not_matter(order):
    parts = [(PLAIN, b"whisper"), (FILE, b"RIFF\x00\r\n\r\n")]
    assert model_of(form(*(parts[place] for place in order))) == "whisper"


@pytest.mark.parametrize(
    "content",
    [
        b"\r\n\r\n",
        b"\r\n--",
        b"--" + BOUNDARY.encode(),
        b"\n--" + BOUNDARY.encode() + b"\n",
        b"\r\n--" + BOUNDARY[:-1].encode(),
        b"\x00\xff" * 50,
        b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nspoofed',
        b"",
    ],
)
def test_a_files_bytes_are_only_bytes(content):
    assert model_of(form((FILE, content), (PLAIN, b"whisper"))) == "whisper"


def test_a_content_with_a_line_that_begins_with_the_boundary_is_refused():
    """It must not be there (RFC 2046, section 5.1.1), and parsers disagree on what it is."""
    content = b"\r\n--" + BOUNDARY.encode() + b"Z\r\n" + PLAIN + b"\r\n\r\nspoofed"
    with pytest.raises(BadRequest):
        read_model(form((FILE, content), (PLAIN, b"whisper")), TYPE)


def test_a_file_name_is_not_the_parts_name():
    named = b'Content-Disposition: form-data; name="file"; filename="a; name=model"'
    assert model_of(form((named, b"spoofed"), (PLAIN, b"whisper"))) == "whisper"


HIDDEN = {
    "two-dispositions": b'Content-Disposition: form-data; name="x"\r\n' + PLAIN,
    "extended-name": b"Content-Disposition: form-data; name*=utf-8''model",
    "escaped-name": b'Content-Disposition: form-data; name="mod\\el"',
}


@pytest.mark.parametrize("headers", HIDDEN.values(), ids=HIDDEN)
def test_a_model_that_the_router_does_not_see_cannot_hide_beside_one_it_does(headers):
    """The engine takes the last of two fields: what is not plainly one name must be refused."""
    with pytest.raises(BadRequest):
        read_model(form((PLAIN, b"allowed"), (headers, b"forbidden")), TYPE)


def test_a_folded_header_does_not_hide_a_second_model():
    folded = b'Content-Disposition: form-data;\r\n name="model"'
    with pytest.raises(BadRequest):
        read_model(form((PLAIN, b"allowed"), (folded, b"forbidden")), TYPE)


def test_a_parameter_that_only_ends_in_boundary_is_not_the_boundary():
    body = form((PLAIN, b"whisper"))
    assert model_of(body, f"multipart/form-data; xboundary=zz; boundary={BOUNDARY}") == "whisper"


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        f"multipart/mixed; boundary={BOUNDARY}",
        "multipart/form-data; boundary=" + "b" * 71 + ' "',
        "multipart/form-data; boundary=other",
    ],
)
def test_another_content_type_is_a_bad_request(content_type):
    with pytest.raises(BadRequest):
        read_model(form((PLAIN, b"whisper")), content_type)


WHOLE = form((FILE, b"RIFF"), (PLAIN, b"whisper"))


@pytest.mark.parametrize("length", range(len(WHOLE) - 4))
def test_a_form_cut_anywhere_before_its_closing_boundary_is_a_bad_request(length):
    with pytest.raises(BadRequest):
        read_model(WHOLE[:length], TYPE)


def test_a_preamble_is_refused():
    with pytest.raises(BadRequest):
        read_model(b"preamble\r\n" + WHOLE, TYPE)


def test_what_follows_the_closing_boundary_does_not_count():
    assert model_of(WHOLE + form((PLAIN, b"other"))) == "whisper"


def test_a_part_without_headers_has_no_name():
    assert model_of(form((b"", b"x"), (PLAIN, b"whisper"))) == "whisper"


def test_two_models_are_invalid_model():
    with pytest.raises(InvalidModel, match="twice"):
        read_model(form((PLAIN, b"a"), (FILE, b""), (PLAIN, b"a")), TYPE)


def test_no_model_is_missing_model():
    with pytest.raises(MissingModel):
        read_model(form((FILE, b"RIFF")), TYPE)


def test_a_form_without_parts_has_no_model():
    with pytest.raises(MissingModel):
        read_model(f"--{BOUNDARY}--\r\n".encode(), TYPE)


@pytest.mark.parametrize("value", [b"", b"  ", b"\xff", b"m" * 513])
def test_a_model_that_is_empty_long_or_not_text_is_invalid_model(value):
    with pytest.raises(InvalidModel):
        read_model(form((PLAIN, value)), TYPE)


def test_an_empty_content_without_its_own_line_is_empty():
    """`end of headers` and `start of boundary` may share one line break."""
    with pytest.raises(InvalidModel):
        read_model(
            b"--%b\r\n%b\r\n\r\n--%b--" % (BOUNDARY.encode(), PLAIN, BOUNDARY.encode()), TYPE
        )


@pytest.mark.parametrize(("count", "refused"), [(64, False), (65, True)])
def test_the_number_of_parts_is_bounded(count, refused):
    others = [(b'Content-Disposition: form-data; name="a"', b"")] * (count - 1)
    body = form(*others, (PLAIN, b"whisper"))
    if refused:
        with pytest.raises(BadRequest, match="64"):
            read_model(body, TYPE)
    else:
        assert model_of(body) == "whisper"


CONTENTS = st.binary(max_size=80).filter(lambda data: b"--" + BOUNDARY.encode() not in data)
NAMES = st.text("abcdefghij", min_size=1, max_size=5)
MODELS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: text.strip() and b"\r\n--" not in text.encode() and text.encode().strip()
)


@given(
    st.lists(st.tuples(NAMES, CONTENTS), max_size=4),
    st.lists(st.tuples(NAMES, CONTENTS), max_size=4),
    MODELS,
    MODELS,
)
def test_a_splice_replaces_the_models_bytes_and_no_other(before, after, old, new):
    def part(name: str, content: bytes) -> tuple[bytes, bytes]:
        return f'Content-Disposition: form-data; name="{name}"'.encode(), content

    def whole(model: str) -> bytes:
        return form(
            *(part(*row) for row in before),
            (PLAIN, model.encode()),
            *(part(*row) for row in after),
        )

    found = read_model(whole(old), TYPE)
    assert found.model == old
    assert splice_model(whole(old), found, new) == whole(new)
