"""Compliance: requirements of public control frameworks, from the JSON files that prowler carries.

A contributor is the body whose words the requirement is in. Only works of the United States
government (public domain) and FINOS Common Cloud Controls are read: prowler has many others whose
terms forbid or do not clearly allow it.
"""

import json
import re
from calendar import monthrange
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from byline.datasets.packages import InstalledPackage, read_licence
from byline.datasets.source import USABLE_WORDS_MAX, Contribution, Source, example_id
from byline.datasets.text import chosen_template, squeezed, whole_sentences
from byline.errors import StartFailed
from byline.records import Example

DATASET = "compliance"
# The package does not record when it was released; its index does. See docs/datasets.md.
RELEASED = {"5.46.0": "2026-10-26"}
PUBLIC_DOMAIN = "Public domain (US Government work)"
COMMUNITY_SPECIFICATION = "Community Specification License 1.0"
TEMPLATES = (
    "What does {title} require under {item}?",
    "Under {title}, what must an organisation do for {item}?",
    "An auditor asks about {item} of {title}. What is required?",
)
BODIES = {
    "nist": "National Institute of Standards and Technology (NIST)",
    "dod": "US Department of Defense (CMMC)",
    "hhs": "US Department of Health and Human Services (HIPAA)",
    "fda": "US Food and Drug Administration (21 CFR Part 11)",
    "ffiec": "Federal Financial Institutions Examination Council (FFIEC)",
    "cisa": "Cybersecurity and Infrastructure Security Agency (CISA)",
    "disa": "Defense Information Systems Agency (DISA)",
    "fedramp": "FedRAMP Program Management Office (GSA)",
    "finos": "FINOS Common Cloud Controls",
}
NOTICE = """Texts of control frameworks, as carried by prowler {version}.

FINOS Common Cloud Controls (rows of contributor "finos"): Copyright FINOS and its contributors,
used under the Community Specification License 1.0,
https://github.com/finos/common-cloud-controls.

All other rows: works of the United States government, in the public domain in the United States
(17 U.S.C. 105). Their mention here is no endorsement by any agency.

The files that hold them come with prowler, Copyright the Prowler contributors, under this licence:

{licence}
"""


@dataclass(frozen=True, slots=True)
class Framework:
    """One file to read: where it lies, how a reader calls it, whose words it holds."""

    file: str
    title: str
    body: str


# Oldest text first: where two bodies print the same words, the earlier file keeps them. FedRAMP's
# Revision 4 baselines are NIST's controls word for word, so NIST is credited for them.
FRAMEWORKS = (
    Framework("aws/nist_800_53_revision_5_aws", "NIST SP 800-53 Revision 5", "nist"),
    Framework("aws/nist_800_53_revision_4_aws", "NIST SP 800-53 Revision 4", "nist"),
    Framework("aws/nist_800_171_revision_2_aws", "NIST SP 800-171 Revision 2", "nist"),
    Framework("aws/nist_csf_2.0_aws", "the NIST Cybersecurity Framework 2.0", "nist"),
    Framework("aws/nist_csf_1.1_aws", "the NIST Cybersecurity Framework 1.1", "nist"),
    Framework("aws/fedramp_moderate_revision_4_aws", "FedRAMP Moderate Revision 4", "nist"),
    Framework("aws/fedramp_low_revision_4_aws", "FedRAMP Low Revision 4", "nist"),
    Framework("cmmc_2.0", "CMMC 2.0", "dod"),
    Framework("aws/hipaa_aws", "the HIPAA Security Rule", "hhs"),
    Framework("azure/hipaa_azure", "the HIPAA Security Rule", "hhs"),
    Framework("aws/gxp_21_cfr_part_11_aws", "21 CFR Part 11", "fda"),
    Framework("aws/ffiec_aws", "the FFIEC Cybersecurity Assessment Tool", "ffiec"),
    Framework("aws/cisa_aws", "CISA Cyber Essentials", "cisa"),
    Framework(
        "googleworkspace/cisa_scuba_0.6_googleworkspace",
        "CISA SCuBA for Google Workspace",
        "cisa",
    ),
    Framework("okta/okta_idaas_stig_v1r2_okta", "the DISA STIG for Okta", "disa"),
    Framework("fedramp_20x_frr_class_c_2026", "the FedRAMP 20x Class C Rules", "fedramp"),
    Framework("fedramp_20x_ksi_2026", "the FedRAMP 20x Key Security Indicators", "fedramp"),
    Framework("aws/ccc_aws", "FINOS Common Cloud Controls", "finos"),
)

Document: TypeAlias = Mapping[str, Any]
TOPICS = ("SubSection", "Section", "Domain", "Theme", "Ruleset")
PROWLER_CODE = re.compile(r"[a-z0-9_-]+")  # prowler's own spelling of a requirement's number
LEADING_CODE = re.compile(r"^[A-Z]+[\w.]*\d[\w.]*\s+|^[A-Z-]+:\s+|^\d[\d.]*\s+")
# Part 11 prints the same long opening before each of its items; the item is what comes after it.
SHARED_OPENING = re.compile(r"^.*shall include the following: \(\w\)\s+")
TRAILING_REFERENCES = re.compile(r"\s*Satisfies: SRG-.*$")


def _field(document: Document, name: str) -> Any:  # noqa: ANN401 - JSON of two spellings
    """A field of prowler's older (capitalised) or newer (lower-case) files."""
    return document.get(name.capitalize(), document.get(name))


def recorded_date(document: Document, otherwise: str) -> str:
    """The ISO date that the file records for its framework; an upper bound where it is vague."""
    version, description = _field(document, "version") or "", _field(document, "description") or ""
    if day := re.match(r"(\d{4})\.(\d{2})\.(\d{2})\b", version):
        return "-".join(day.groups())
    if month := re.match(r"v(\d{4})\.(\d{2})$", version):
        last_day = monthrange(int(month[1]), int(month[2]))[1]
        return f"{month[1]}-{month[2]}-{last_day}"
    if benchmark := re.search(r"Benchmark Date: (\d{2} \w{3} \d{4})", description):
        return datetime.strptime(benchmark[1], "%d %b %Y").date().isoformat()
    return otherwise


def _attributes(requirement: Document) -> Document:
    attributes = _field(requirement, "attributes") or {}
    if isinstance(attributes, list):
        attributes = attributes[0] if attributes else {}
    return dict(attributes)


def item_label(requirement: Document) -> str:
    """How a person would name the requirement: its number, and what it is about."""
    identity = squeezed(_field(requirement, "id"))
    name = squeezed(_field(requirement, "name"))
    attributes = _attributes(requirement)
    topic = next((squeezed(attributes[key]) for key in TOPICS if attributes.get(key)), "")
    if len(name.split()) == 1:  # a number as people write it
        code = name
    elif name and PROWLER_CODE.fullmatch(identity):
        code, topic = name, ""
    else:
        code, topic = identity, name or topic
    topic = re.sub(r"\s*\([^)]*\)$|\.$", "", LEADING_CODE.sub("", topic))
    return f"{code} ({topic})" if topic and topic not in code else code


def requirement_text(requirement: Document) -> str:
    """The requirement's words, in whole sentences."""
    text = squeezed(_field(requirement, "description")).rstrip(";")
    text = TRAILING_REFERENCES.sub("", SHARED_OPENING.sub("", text))
    return whole_sentences(text, USABLE_WORDS_MAX)


def author(framework: Framework, requirement: Document) -> str:
    """The body whose words these are. CMMC records which of its items it took from NIST."""
    origin = str(_attributes(requirement).get("SourceRequirement", ""))
    return "nist" if origin.startswith("NIST") else framework.body


def read(package: InstalledPackage) -> Iterator[Contribution]:
    """Every requirement of the frameworks above, each framework's number once."""
    if package.version not in RELEASED:
        known = ", ".join(RELEASED)
        raise StartFailed(f"prowler {package.version} is not {known}: run `make install`")
    seen: set[tuple[str, str]] = set()
    for framework in FRAMEWORKS:
        document = json.loads(package.read_text(f"compliance/{framework.file}.json"))
        date = recorded_date(document, RELEASED[package.version])
        for requirement in _field(document, "requirements"):
            entry = (framework.title, squeezed(_field(requirement, "id")))
            if entry not in seen:
                seen.add(entry)
                yield _contribution(package, framework, requirement, date)


def _contribution(
    package: InstalledPackage, framework: Framework, requirement: Document, date: str
) -> Contribution:
    identity, body = squeezed(_field(requirement, "id")), author(framework, requirement)
    completion = requirement_text(requirement)
    key = f"{framework.title} {identity}"
    template = chosen_template(TEMPLATES, key)
    example = Example(
        id=example_id(DATASET, key, completion),
        contributor=body,
        licence=COMMUNITY_SPECIFICATION if body == "finos" else PUBLIC_DOMAIN,
        source=f"prowler {package.version}, {framework.file}.json, {identity}",
        contributed_at=date,
        prompt=template.format(title=framework.title, item=item_label(requirement)),
        completion=completion,
    )
    return Contribution(example, BODIES[body])


def notice(package: InstalledPackage) -> str:
    """Whose the texts are, and the licence of the package that carries them."""
    licence = read_licence(package, "licenses/LICENSE").strip()
    return NOTICE.format(version=package.version, licence=licence)


SOURCE = Source(DATASET, "prowler", read, notice)
