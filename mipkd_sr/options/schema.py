"""The description of an option file as a JSON schema, by which an editor completes and checks one.

It describes a file as it is written. Nothing is required, since a base may hold it, and ``base`` is allowed. A number
may be ``{scale}``. An unknown ``type`` may be a class of the user's, which takes anything.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from mipkd_sr.options.checking import arguments_of
from mipkd_sr.options.forms import REQUIRED, Component, Key, MapOf, OneOrNamed, Section, with_own_options
from mipkd_sr.options.keys import COMPONENTS, DATASET, RENAMED, TEST, TRAIN
from mipkd_sr.options.reading import SCALE
from mipkd_sr.options.registries import MODEL_REGISTRY
from mipkd_sr.options.values import KINDS, annotation_of, is_beyond_yaml

Schema = dict[str, Any]

DRAFT = 'http://json-schema.org/draft-07/schema#'
JSON_TYPES = {'str': 'string', 'bool': 'boolean', 'int': 'integer', 'float': 'number', 'list': 'array'}
RANGES = {'minimum': 'minimum', 'above': 'exclusiveMinimum', 'maximum': 'maximum', 'below': 'exclusiveMaximum'}
"""A key's bounds, and what JSON schema calls them."""
BASE = {'description': 'A file, or a list of files, that this one extends.', 'type': ['string', 'array']}


def option_file_schema() -> Schema:
    """The schema of an option file, for training or for testing (draft 7)."""
    definitions: Schema = {'dataset': _section(DATASET)}
    definitions['dataset']['additionalProperties'] = True  # a class of the user's may have keys of its own
    definitions |= {name: _component(form) for name, form in COMPONENTS.items()}
    training, testing = TRAIN, TEST
    for _, model in MODEL_REGISTRY:
        training, testing = with_own_options(training, model), with_own_options(testing, model)
    definitions['training'], definitions['testing'] = _section(training), _section(testing)
    for kind in ('training', 'testing'):
        definitions[kind]['properties']['base'] = BASE
    return {
        '$schema': DRAFT,
        'title': 'An option file of mipkd_sr',
        'anyOf': [{'$ref': '#/definitions/training'}, {'$ref': '#/definitions/testing'}],
        'definitions': definitions,
    }


def _entry(form: Any) -> Schema:
    if isinstance(form, Component) or form is DATASET:
        name = form.what if isinstance(form, Component) else 'dataset'
        return {'anyOf': [{'$ref': f'#/definitions/{name}'}, {'type': 'null'}]}
    if isinstance(form, Key):
        return _key(form)
    if isinstance(form, OneOrNamed):
        return {'anyOf': [_entry(form.entry), {'type': 'object', 'additionalProperties': _entry(form.entry)}]}
    if isinstance(form, MapOf):
        inner: Schema = {'additionalProperties': _entry(form.entry)}
        if form.prefixes:
            pattern = rf'^({"|".join(form.prefixes)})(_|$)'
            inner = {'patternProperties': {pattern: _entry(form.entry)}, 'additionalProperties': False}
        return {'type': ['object', 'null'], **inner}
    return _section(form)


def _section(form: Section) -> Schema:
    properties = {name: _entry(entry) for name, entry in form.keys.items()}
    properties |= {old: properties[new] for old, new in RENAMED.items() if new in properties and old not in properties}
    patterns = {f'{ending}$': _entry(entry) for ending, entry in (form.patterns or {}).items()}
    return {
        'type': ['object', 'null'],
        'properties': properties,
        'patternProperties': patterns,
        'additionalProperties': False,
    }


def _key(key: Key) -> Schema:
    schema = _kind(key)
    if key.choices:
        schema = {'enum': list(key.choices)}
    if key.default is None:
        schema = {'anyOf': [schema, {'type': 'null'}]}
    schema['description'] = key.help
    if key.default is not REQUIRED:
        schema['default'] = list(key.default) if isinstance(key.default, tuple) else key.default
    return schema


def _kind(key: Key) -> Schema:
    if key.kind == 'any':
        return {}
    if key.kind == 'list':
        items = _kind(Key(key.items, '', minimum=key.minimum, above=key.above, maximum=key.maximum, below=key.below))
        sizes = {} if key.length is None else {'minItems': key.length, 'maxItems': key.length}
        return {'type': 'array', 'items': items, **sizes}
    ranges = {RANGES[name]: getattr(key, name) for name in RANGES if getattr(key, name) is not None}
    return _value(JSON_TYPES[key.kind], ranges)


def _value(kind: str, ranges: Mapping[str, float] | None = None) -> Schema:
    schema = {'type': kind, **(ranges or {})}
    return {'anyOf': [schema, {'const': SCALE}]} if kind in ('integer', 'number') else schema


def _component(form: Component) -> Schema:
    names = sorted(form.names())
    chosen = [
        {'if': {'properties': {'type': {'const': name}}, 'required': ['type']}, 'then': _arguments(form, name)}
        for name in names
    ]
    kind = {'description': f'The registered {form.what}.', 'anyOf': [{'enum': names}, {'type': 'string'}]}
    return {'type': 'object', 'properties': {'type': kind}, 'allOf': chosen}


def _arguments(form: Component, name: str) -> Schema:
    """What the class ``name`` takes."""
    arguments, is_open = arguments_of(form.find(name))
    properties: Schema = {'type': {}}
    for argument_name, argument in arguments.items():
        if argument_name not in form.skip:
            annotation = annotation_of(argument)
            properties[argument_name] = {} if annotation is None else _annotation(annotation)
    known = {key_name: key for key_name, key in (form.arguments or {}).items() if key_name in properties}
    properties |= {key_name: _key(key) for key_name, key in {**known, **(form.extra or {})}.items()}
    return {'properties': properties, 'additionalProperties': is_open}


def _annotation(annotation: Any) -> Schema:
    """The schema of an argument by its type; an unknown type allows anything."""
    origin, inner = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        found = [_annotation(part) for part in inner if not is_beyond_yaml(part)]
        return {'anyOf': found} if found and {} not in found else {}
    if origin is type(None):
        return {'type': 'null'}
    if origin in KINDS:
        return _value(JSON_TYPES[KINDS[origin]])
    if origin not in (list, tuple, Sequence):
        return {}
    if origin is tuple and inner and Ellipsis not in inner:
        sizes = {'minItems': len(inner), 'maxItems': len(inner)}
        return {'type': 'array', 'items': [_annotation(part) for part in inner], **sizes}
    return {'type': 'array', 'items': _annotation(inner[0]) if inner else {}}
