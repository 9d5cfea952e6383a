"""The page of the API: complete, self-contained, and safe to show."""

import re
from html.parser import HTMLParser

from fedunlearn.door.page import page

VOID = {"meta", "br"}
LOOSE = {"td", "tr", "p", "html", "title", "style"}  # HTML lets td stay open


class Reader(HTMLParser):
    """Collects tags, ids, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.ids, self.links, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append(tag)
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []

    def handle_data(self, data) -> None:
        self.words.append(data)


def test_the_page_shows_every_operation_parameter_and_model_and_fetches_nothing(knock) -> None:
    schema = knock("GET", "/openapi.json").json
    answer = knock("GET", "/docs")
    assert answer.headers["Content-Type"].startswith("text/html")
    text = answer.body.decode()
    found = Reader(text)
    words = " ".join(found.words)
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert re.search(rf"{method.upper()}\s+{re.escape(path)}", words)
            assert operation["description"].split("\n")[0] in words
            for parameter in operation.get("parameters", ()):
                assert parameter["name"] in words
    assert set(found.ids) == set(schema["components"]["schemas"])
    assert {link for link in found.links if not link.startswith("#")} == {"openapi.json"}
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert not {"script", "link", "img", "iframe"} & set(found.tags)
    assert "http://" not in text and "https://" not in text


ASK = {
    "clients": "Numbers of the clients to forget together; may be left out with classes, which then means every "
    "client.",
    "samples": "Only these samples of theirs: a share, drawn with the experiment's seed; rows of a single client, "
    "counted from 0; or rows by client.",
    "classes": "Only samples of these classes.",
}


def test_the_page_says_what_may_be_asked(knock) -> None:
    told = knock("GET", "/openapi.json").json["components"]["schemas"]["Ask"]["properties"]
    assert {name: field["description"] for name, field in told.items()} == ASK
    words = " ".join(Reader(knock("GET", "/docs").body.decode()).words)
    assert all(description in words for description in ASK.values())


def test_what_a_schema_says_cannot_become_markup() -> None:
    evil = "<script>alert(1)</script>"
    schema = {
        "info": {"title": evil, "description": evil},
        "paths": {evil: {"get": {"description": evil, "responses": {evil: {"description": evil}}}}},
        "components": {
            "schemas": {"a": {"description": evil, "properties": {evil: {"type": evil, "enum": [evil]}}}}
        },
    }
    assert "script" not in Reader(page(schema)).tags


def test_the_schema_names_the_security_scheme_for_what_needs_a_token(knock) -> None:
    schema = knock("GET", "/openapi.json").json
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path not in ("/health", "/docs")), path
    assert schema["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
