"""Every test run executes the shape annotations of the package (jaxtyping + beartype)."""

from jaxtyping import install_import_hook

install_import_hook("meshwright", "beartype.beartype")
