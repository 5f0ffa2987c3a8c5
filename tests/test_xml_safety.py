"""Hostile XML is refused before it does anything."""

import pytest

from datasets_scripts.readers import xml_safety
from datasets_scripts.readers.xml_safety import child, descendants, number_of, parse_xml, text_of

pytest.importorskip("defusedxml")


@pytest.fixture
def parsed(tmp_path):
    def parse(text):
        path = tmp_path / "file.xml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return parse_xml(path)

    return parse


def test_names_without_namespace_and_case(parsed):
    root = parsed('<a:Root xmlns:a="urn:x"><B><c> 7 </c></B><b/></a:Root>')
    assert text_of(root, "b", "c") == "7"
    assert text_of(root, "b", "nothing") == "" and child(None, "b") is None
    assert len(list(descendants(root, "b"))) == 2


def test_latin_1_is_read(parsed):
    assert parsed('<?xml version="1.0" encoding="ISO-8859-1"?><r>\xe9</r>'.encode("latin-1")).text == "é"


def test_the_doctype_of_muse_is_let_pass_and_not_followed(parsed, tmp_path):
    (tmp_path / "restecg.dtd").write_text('<!ENTITY x "followed">')
    assert parsed('<!DOCTYPE RestingECG SYSTEM "restecg.dtd"><RestingECG>a</RestingECG>').text == "a"
    with pytest.raises(ValueError, match=r"file\.xml"):
        parsed('<!DOCTYPE RestingECG SYSTEM "restecg.dtd"><RestingECG>&x;</RestingECG>')


BOMB = '<!DOCTYPE b [<!ENTITY a "ha">' + "".join(f'<!ENTITY a{n + 1} "{f"&a{n or str()};" * 10}">' for n in range(9))


@pytest.mark.parametrize(
    "text",
    [
        BOMB + "]><b>&a9;</b>",
        '<!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/passwd">]><b>&a;</b>',
        '<!DOCTYPE b [<!ENTITY % a SYSTEM "http://localhost/x.dtd"> %a;]><b/>',
        '<!DOCTYPE b [<!ATTLIST b c CDATA "default">]><b/>',
        "<!DOCTYPE b []><b/>",
    ],
)
def test_entities_and_declarations_are_refused(parsed, text):
    with pytest.raises(ValueError, match=r"file\.xml: declares entities"):
        parsed(text)


@pytest.mark.parametrize(
    "text", ["", "<a>", "no xml", "<a></b>", "<a>\0</a>", "<?xml version='1.0' encoding='none'?><a/>"]
)
def test_damaged_files_are_refused_with_a_sentence(parsed, text):
    with pytest.raises(ValueError, match=r"file\.xml: (is not well-formed|cannot be read)"):
        parsed(text)


def test_depth_number_and_size_have_limits(parsed, monkeypatch):
    with pytest.raises(ValueError, match="levels"):
        parsed("<a>" * 200 + "</a>" * 200)
    monkeypatch.setattr(xml_safety, "MAX_ELEMENTS", 50)
    with pytest.raises(ValueError, match="elements"):
        parsed("<r>" + "<a/>" * 60 + "</r>")
    monkeypatch.setattr(xml_safety, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match="at most 10 bytes"):
        parsed("<root>text</root>")


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "1_0", "1e999"])
def test_numbers(tmp_path, text):
    assert number_of(tmp_path, " 2.5e0 ", "it") == 2.5
    with pytest.raises(ValueError, match="expected a number for it"):
        number_of(tmp_path, text, "it")
