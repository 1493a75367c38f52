"""Cybersecurity: the Common Weakness Enumeration, from the XML catalogue that cwe2 carries.

A contributor is whoever the entry's content history records as its submitter: a person, a team
(its first-listed author), a taxonomy such as PLOVER, or an anonymous vendor.
"""

from collections.abc import Iterator
from xml.etree import ElementTree

from byline.datasets.packages import InstalledPackage, read_licence
from byline.datasets.source import (
    USABLE_WORDS_MAX,
    USABLE_WORDS_MIN,
    Contribution,
    Source,
    example_id,
)
from byline.datasets.text import chosen_template, slug, squeezed, whole_sentences, word_count
from byline.errors import StartFailed
from byline.records import Example

DATASET = "cybersecurity"
CATALOGUE = "database_v49/cwec_v4.14.xml"
LICENCE = "CWE Terms of Use (MITRE: royalty-free, keep the notice)"
TEMPLATES = (
    "What is CWE-{id} ({name})?",
    "Explain the software weakness CWE-{id}: {name}.",
    "In a security review someone cites CWE-{id}, {name}. What does it describe?",
)
LEFT_OUT = ("Deprecated", "Obsolete")
NAMESPACE = {"cwe": "http://cwe.mitre.org/cwe-7"}
SUBMISSION = "cwe:Content_History/cwe:Submission/cwe:"


def _parse(package: InstalledPackage) -> ElementTree.Element:
    try:
        # The catalogue is a pinned package's own file; nobody else's bytes are parsed here.
        return ElementTree.fromstring(package.read_text(CATALOGUE))  # noqa: S314
    except ElementTree.ParseError as problem:
        raise StartFailed(f"{CATALOGUE} is damaged ({problem}): run `make install`") from problem


def _description(weakness: ElementTree.Element) -> str:
    """The description; where that is very short, with the start of the extended one."""
    texts = [
        squeezed(" ".join(element.itertext()))
        for tag in ("Description", "Extended_Description")
        if (element := weakness.find(f"cwe:{tag}", NAMESPACE)) is not None
    ]
    if texts and word_count(texts[0]) >= USABLE_WORDS_MIN:
        texts = texts[:1]
    return whole_sentences(" ".join(texts), USABLE_WORDS_MAX)


def read(package: InstalledPackage) -> Iterator[Contribution]:
    """Every living weakness whose submitter and date of submission are recorded."""
    for weakness in _parse(package).iterfind("cwe:Weaknesses/cwe:Weakness", NAMESPACE):
        submitter = squeezed(weakness.findtext(f"{SUBMISSION}Submission_Name", "", NAMESPACE))
        date = squeezed(weakness.findtext(f"{SUBMISSION}Submission_Date", "", NAMESPACE))
        if weakness.get("Status") in LEFT_OUT or not submitter or not date:
            continue
        first_listed = submitter.split(",")[0].strip()
        number, name = weakness.get("ID", ""), weakness.get("Name", "")
        completion = _description(weakness)
        example = Example(
            id=example_id(DATASET, f"CWE-{number}", completion),
            contributor=slug(first_listed),
            licence=LICENCE,
            source=f"cwe2 {package.version}, CWE 4.14, CWE-{number}",
            contributed_at=date,
            prompt=chosen_template(TEMPLATES, number).format(id=number, name=name),
            completion=completion,
        )
        yield Contribution(example, first_listed)


def notice(package: InstalledPackage) -> str:
    """MITRE's terms of use and copyright designation, as the package carries them."""
    terms = read_licence(package, "cwe-tou.LICENSE").strip()
    return f"{package.read_text('database_v49/cwe.NOTICE').strip()}\n\n{terms}\n"


SOURCE = Source(DATASET, "cwe2", read, notice)
