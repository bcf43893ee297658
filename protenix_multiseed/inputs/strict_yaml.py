"""YAML as people expect it: read by the rules of YAML 1.2, each key once, without aliases.

PyYAML follows YAML 1.1, in which ``NO`` is a truth value, ``017`` is 15 and ``1:30`` is 90. Here they are texts, so a
ligand may be called NO, and a number that is written in a strange way is refused where a number is expected.
"""

import re
from typing import Any

import yaml

from protenix_multiseed.inputs.document import first_twice

_TRUTH, _INTEGER, _FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float"))
_NUMBER = r"(?:0|[1-9][0-9_]*)"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012  the base class declares it so
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_TRUTH, _INTEGER, _FLOAT)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # they can nest without end
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        made = super().construct_mapping(node, deep)  # refuses keys that are no text or number
        if len(made) < len(node.value):
            twice = first_twice(self.construct_object(key, deep=True) for key, _ in node.value)
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} is given twice", node.start_mark)
        return made


for _tag, _pattern, _first in (
    (_TRUTH, r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (_INTEGER, rf"[-+]?{_NUMBER}", "-+0123456789"),
    (_FLOAT, rf"[-+]?(?:{_NUMBER}\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
     "-+0123456789."),
):  # fmt: skip
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), list(_first))


def load(text: str) -> Any:
    """Return the content of a YAML text.

    Raises:
        yaml.YAMLError: if it is not YAML, has an alias, or gives a key twice in one mapping.
        ValueError: if a value cannot be read.
        RecursionError: if it is nested too deeply.
    """
    return yaml.load(text, Loader=_Loader)
