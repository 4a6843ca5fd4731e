"""Validates answers against schemas of an OpenAPI document, and prints the faults as a JSON list.

CHECKS is a file: {"document": the document, "answers": [{"name", "pointer", "value"}]}. A pointer is that of a schema in
the document.
"""

import json
import os

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

ID = "urn:vecho:openapi"


def schemas_in(node):
    """Yields all schemas of a document: the values of members named `schema`, and those in `components`."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "schema":
                yield value
            elif name == "schemas":
                yield from value.values()
            else:
                yield from schemas_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from schemas_in(value)


def main():
    with open(os.environ["CHECKS"], encoding="utf-8") as file:
        checks = json.load(file)
    document = checks["document"]
    for schema in schemas_in(document):
        Draft202012Validator.check_schema(schema)
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    registry = Registry().with_resource(ID, resource)
    faults = []
    for answer in checks["answers"]:
        validator = Draft202012Validator({"$ref": f"{ID}#{answer['pointer']}"}, registry=registry)
        faults.extend(f"{answer['name']}: {error.json_path}: {error.message}" for error in validator.iter_errors(answer["value"]))
    print(json.dumps(faults))


main()
