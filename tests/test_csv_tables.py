"""Tables in CSV: broken rows are told with their number, and nothing in them is guessed."""

import pytest

from datasets_scripts.listing.csv_tables import parse_age, parse_sex, read_rows, require_columns, whole_number


def table(folder, content):
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_rows_and_their_values(tmp_path):
    path = table(tmp_path, '\ufeffid,text\n1,"a, b"\n\n2, c \r\n')  # a mark of Excel, a blank line, other line ends
    first, second = read_rows(path, ("id",))
    assert (first.number, first.values, first.problem) == (1, {"id": "1", "text": "a, b"}, None)
    assert (second.number, second.get("text"), second.get("gone")) == (2, "c", "")


def test_rows_of_another_length_keep_only_what_is_in_no_doubt(tmp_path):
    long, short, good = read_rows(table(tmp_path, "id,text\n1,a, b\n2\n3,c\n"), ("id",))
    assert long.problem.startswith(
        "row 1 of table.csv: expected 2 values, got 3; put values that hold commas in quotes"
    )
    assert short.problem.startswith("row 2 of table.csv: expected 2 values, got 1")
    assert long.values == {"id": "1"} and short.get("id") == "2" and good.problem is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "whose first line names the columns"),
        ("id,txt\n1,a\n", "expected the columns id, text, got id, txt"),
        ("id,text\n1,ä\n".encode("latin-1"), "expected a CSV in UTF-8"),
        ("id,text\n1," + "a" * 140_000 + "\n", "what cannot be read as one"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as raised:
        list(read_rows(table(tmp_path, content), ("id", "text")))
    assert "table.csv" in str(raised.value) and "\n" not in str(raised.value)


def test_columns_in_their_order(tmp_path):
    assert require_columns(table(tmp_path, "b,a\n"), ("a",)) == ["b", "a"]
    with pytest.raises(FileNotFoundError):
        require_columns(tmp_path / "gone.csv", ("a",))


def test_numbers_ages_and_sexes():
    assert [whole_number(text) for text in ("7.0", " 7 ", "7.5", "a.0", "")] == ["7", "7", "7.5", "a.0", ""]
    assert [parse_age(text) for text in ("", "nan", "0", "56.5")] == [None, None, 0.0, 56.5]
    for text in ("old", "-1", "151", "inf", "300"):
        with pytest.raises(ValueError, match="age: expected"):
            parse_age(text)
    assert [parse_sex(text) for text in ("M", "female", " F ", "", "Unknown")] == [
        "male",
        "female",
        "female",
        None,
        None,
    ]
    with pytest.raises(ValueError, match="got '1'"):
        parse_sex("1")  # 1 is female in PTB-XL, male elsewhere
