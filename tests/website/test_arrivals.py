import nbformat

from concurrency_lab.experiments import start_methods
from website import arrivals, claims

TABLE = {
    "methods": ["fork", "spawn"],
    "rows": [[row, [True, None]] for row in start_methods.ROWS.values()],
}


def test_every_phrase_of_the_table_has_a_translation():
    assert set(start_methods.PHRASES) == arrivals.WORDS["ko"].keys()
    assert len(set(arrivals.WORDS["ko"].values())) == len(start_methods.PHRASES)


def test_the_table_in_a_korean_page_is_korean():
    output = nbformat.v4.new_output("display_data", {
        start_methods.MIME_TYPE: TABLE,
        "text/html": start_methods.render_html(TABLE),
        "text/plain": "a table",
    })  # fmt: skip
    (localised,) = claims.localise_outputs([output], "ko", {})
    page = localised["data"]["text/html"]
    assert not [phrase for phrase in start_methods.PHRASES if f">{phrase}<" in page]
    assert page.count("<strong>예</strong>") == page.count("알 수 없음") == len(TABLE["rows"])
    assert ">fork<" in page and ">spawn<" in page
    (english,) = claims.localise_outputs([output], "en", {})
    assert english["data"]["text/html"] == output["data"]["text/html"]
