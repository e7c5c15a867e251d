from pathlib import Path

import pytest

from graphkit.errors import UnknownName, all_errors
from graphkit.report.error_pages import find, pages, write

DOCS = Path(__file__).parents[2] / "docs" / "errors"


def test_the_pages_in_docs_are_up_to_date():
    on_disk = {p.name: p.read_text(encoding="utf-8") for p in DOCS.iterdir()}
    assert on_disk == pages(), "run: python -m graphkit.report.error_pages docs/errors"


@pytest.mark.parametrize("error", list(all_errors()), ids=lambda e: e.code)
def test_every_code_has_a_page_that_says_what_it_means(error):
    page = pages()[f"{error.code}.md"]
    assert page.startswith(f"# {error.code}: {error.__name__}\n\n")
    assert f"Exit code {error.exit_code}: " in page
    assert vars(error).get("__doc__"), "the docstring of the class is its page"
    assert f"| [{error.code}]({error.code}.md) | {error.__name__} | " in pages()["README.md"]


def test_writing_removes_pages_of_codes_that_are_gone(tmp_path):
    (tmp_path / "GK999.md").write_text("old")
    write(tmp_path / "errors")
    write(tmp_path)
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == set(pages())


def test_an_unknown_code_lists_the_known_ones():
    with pytest.raises(UnknownName, match="GK999") as caught:
        find("GK999")
    assert "GK101-GK1" in str(caught.value.remedy)
