"""The 3D viewer Mol* (MIT licence) from the package dash-molstar."""

import ast
import importlib.util
import json
import re
from pathlib import Path

from protenix_multiseed.errors import ConfigError

_PACKAGE, _SCRIPT, _BUNDLE = "dash_molstar", "rcsb-molstar.js", "dash_molstar.min.js"
_STYLE = re.compile(r"'/\*! normalize\.css[^'\\]*(?:\\.[^'\\]*)*'")  # the bundle holds it as a JavaScript string


def viewer_script() -> str:
    """Return JavaScript that defines ``rcsbMolstar``, and ``molstarStyle``, the text of its style sheet.

    Raises:
        ConfigError: if the package is missing or has other files.
    """
    found = importlib.util.find_spec(_PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found else ():
        script, bundle = Path(folder) / _SCRIPT, Path(folder) / _BUNDLE
        if script.is_file() and bundle.is_file() and (style := _STYLE.search(bundle.read_text(encoding="utf-8"))):
            text = json.dumps(ast.literal_eval(style[0]))
            return f"{script.read_text(encoding='utf-8')}\nwindow.molstarStyle = {text};\n"
    raise ConfigError("the 3D viewer's package dash-molstar is missing or changed; pip install 'dash-molstar>=1.4,<2'")
