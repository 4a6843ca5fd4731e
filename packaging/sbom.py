"""The software bill of materials in CycloneDX's JSON format."""

import datetime
import hashlib
import json
import uuid

from linked import linked
from project import ROOT, epoch, run

FORMAT = "1.6"


def sbom(triple):
    """Returns the bill of the linked crates and the standard library."""
    crates = linked(triple)
    main, *others = [component(crate) for crate in crates]
    rust = standard_library()
    graph = [{"ref": crate.purl, "dependsOn": [purl(use) for use in crate.uses]} for crate in crates]
    graph[0]["dependsOn"].append(rust["bom-ref"])
    whole = {
        "$schema": f"http://cyclonedx.org/schema/bom-{FORMAT}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": FORMAT,
        "serialNumber": f"urn:uuid:{serial(triple)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(epoch(), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": main | {"type": "application"},
            "properties": [{"name": "vecho:target", "value": triple}],
        },
        "components": [*others, rust],
        "dependencies": graph,
    }
    return (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode()


def component(crate):
    found = {
        "type": "library",
        "bom-ref": crate.purl,
        "name": crate.name,
        "version": crate.version,
        "licenses": [{"expression": crate.licence}],
        "purl": crate.purl,
    }
    if crate.sha256:
        found["hashes"] = [{"alg": "SHA-256", "content": crate.sha256}]
    if crate.repository:
        found["externalReferences"] = [{"type": "vcs", "url": crate.repository}]
    return found


def standard_library():
    version = run("rustc", "--version").split()[1]
    return {
        "type": "library",
        "bom-ref": f"rust-std@{version}",
        "name": "rust-std",
        "version": version,
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }


def purl(use):
    return f"pkg:cargo/{use[0]}@{use[1]}"


def serial(triple):
    """Returns a number that is the same for the same sources."""
    content = hashlib.sha256((ROOT / "Cargo.lock").read_bytes()).hexdigest()
    return uuid.uuid5(uuid.NAMESPACE_URL, f"vecho {triple} {epoch()} {content}")
