"""What a path says about a file: its language, and whether it is code, configuration, documentation or infrastructure.

Only the path is looked at, so that a whole repository is classified from its listing.
"""

from __future__ import annotations

import fnmatch
import re
from enum import StrEnum


class FileClass(StrEnum):
    """What a file is for."""

    CODE = "code"
    CONFIG = "config"
    DOCS = "docs"
    INFRASTRUCTURE = "infrastructure"


_LANGUAGES = {
    "ada": "adb ads",
    "assembly": "asm s",
    "bash": "bash sh zsh ksh",
    "batch": "bat cmd",
    "c": "c h",
    "clojure": "clj cljc cljs edn",
    "cmake": "cmake",
    "cpp": "cc cpp cxx c++ hh hpp hxx h++ ipp tpp",
    "csharp": "cs csx",
    "css": "css",
    "cuda": "cu cuh",
    "cue": "cue",
    "d": "d",
    "dart": "dart",
    "elixir": "ex exs",
    "elm": "elm",
    "erlang": "erl hrl",
    "fish": "fish",
    "fortran": "f f77 f90 f95 f03 for",
    "fsharp": "fs fsi fsx",
    "gdscript": "gd",
    "gherkin": "feature",
    "glsl": "glsl vert frag comp",
    "go": "go",
    "graphql": "graphql gql",
    "groovy": "groovy gradle gvy",
    "haskell": "hs lhs",
    "hcl": "hcl nomad",
    "html": "html htm xhtml",
    "ini": "ini cfg conf properties editorconfig",
    "java": "java",
    "javascript": "js mjs cjs jsx",
    "jinja": "j2 jinja jinja2",
    "json": "json json5 jsonc geojson ipynb",
    "jsonnet": "jsonnet libsonnet",
    "julia": "jl",
    "kotlin": "kt kts",
    "less": "less",
    "lisp": "lisp lsp el cl",
    "lua": "lua",
    "markdown": "md markdown mdx mkd",
    "matlab": "m",
    "nim": "nim",
    "nix": "nix",
    "objective-c": "mm",
    "ocaml": "ml mli",
    "pascal": "pas pp",
    "perl": "pl pm",
    "php": "php phtml",
    "powershell": "ps1 psm1 psd1",
    "prolog": "pro",
    "protobuf": "proto",
    "python": "py pyi pyx pxd",
    "r": "r",
    "racket": "rkt",
    "rego": "rego",
    "restructuredtext": "rst",
    "ruby": "rb rake gemspec",
    "rust": "rs",
    "sass": "sass scss",
    "scala": "scala sc sbt",
    "scheme": "scm ss",
    "solidity": "sol",
    "sql": "sql",
    "starlark": "bzl star bazel",
    "svelte": "svelte",
    "swift": "swift",
    "tcl": "tcl",
    "terraform": "tf tfvars",
    "thrift": "thrift",
    "toml": "toml",
    "typescript": "ts tsx mts cts",
    "vb": "vb vbs",
    "verilog": "v sv svh",
    "vhdl": "vhd vhdl",
    "vim": "vim",
    "vue": "vue",
    "wgsl": "wgsl",
    "xml": "xml xsd xsl xslt svg plist",
    "yaml": "yaml yml",
    "zig": "zig",
    "asciidoc": "adoc asciidoc",
    "text": "txt text log",
    "org": "org",
    "csv": "csv tsv",
    "json-lines": "jsonl ndjson",
}
_BY_EXTENSION = {extension: language for language, names in _LANGUAGES.items() for extension in names.split()}

_BY_NAME = {
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "makefile": "make",
    "gnumakefile": "make",
    "justfile": "just",
    "jenkinsfile": "groovy",
    "vagrantfile": "ruby",
    "rakefile": "ruby",
    "gemfile": "ruby",
    "procfile": "yaml",
    "cmakelists.txt": "cmake",
    "build": "starlark",
    "workspace": "starlark",
    "tiltfile": "starlark",
    "go.mod": "go-module",
    ".gitignore": "ignore-list",
    ".dockerignore": "ignore-list",
    ".bashrc": "bash",
    ".profile": "bash",
}

_DOCUMENTS = frozenset({"markdown", "restructuredtext", "asciidoc", "text", "org", "html"})
_CONFIGURATIONS = frozenset({"yaml", "toml", "json", "ini", "xml", "jsonnet", "cue", "ignore-list", "go-module"})
_INFRASTRUCTURE = frozenset({"dockerfile", "terraform", "hcl", "make", "just", "nix", "rego"})
_DATA = frozenset({"csv", "json-lines"})

_DOCUMENT_NAMES = re.compile(
    r"(readme|licen[cs]e|copying|notice|authors|contributors|contributing|changelog|changes|history|news|todo|"
    r"security|code_of_conduct|maintainers|owners|faq)(\.[a-z0-9]{1,8})?"
)
_INFRASTRUCTURE_NAMES = (
    "dockerfile.*",
    "*.dockerfile",
    "docker-compose*.y*ml",
    "compose*.y*ml",
    "kustomization.y*ml",
    "chart.y*ml",
    "values*.y*ml",
    "helmfile*.y*ml",
    "skaffold.y*ml",
    "serverless.y*ml",
    "jenkinsfile*",
    "vagrantfile*",
    "procfile",
    ".gitlab-ci.y*ml",
    ".travis.y*ml",
    ".drone.y*ml",
    ".pre-commit-config.y*ml",
    "azure-pipelines*.y*ml",
    "cloudbuild*.y*ml",
    "buildspec*.y*ml",
    "bitbucket-pipelines.y*ml",
    "ansible.cfg",
)
_INFRASTRUCTURE_DIRECTORIES = frozenset(
    {
        ".github",
        ".gitlab",
        ".circleci",
        ".buildkite",
        ".ci",
        ".tekton",
        "ansible",
        "charts",
        "helm",
        "k8s",
        "kubernetes",
        "kustomize",
        "manifests",
        "playbooks",
        "terraform",
    }
)
_DIRECTORY_CONFIGURATIONS = frozenset({"yaml", "json", "toml", "ini", "jinja"})
"""Languages that are infrastructure below such a directory: code that lies there stays code."""
_TEMPLATE_NAMES = ("*.tpl", "*.tmpl")


def language_of(path: str) -> str | None:
    """The language of a file, in lower case, or None where its name does not tell."""
    name = path.rpartition("/")[2].lower()
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name.startswith(("dockerfile.", "containerfile.")) or name.endswith(".dockerfile"):
        return "dockerfile"
    stem, dot, extension = name.rpartition(".")
    if not dot or not stem:
        return None
    return _BY_EXTENSION.get(extension)


def class_of(path: str) -> FileClass:
    """What a file is for. The rules in order: infrastructure, documentation, configuration, otherwise code."""
    lowered = path.lower()
    directories, _, name = lowered.rpartition("/")
    language = language_of(lowered)
    if language in _INFRASTRUCTURE or any(fnmatch.fnmatchcase(name, glob) for glob in _INFRASTRUCTURE_NAMES):
        return FileClass.INFRASTRUCTURE
    template = any(fnmatch.fnmatchcase(name, glob) for glob in _TEMPLATE_NAMES)
    if (language in _DIRECTORY_CONFIGURATIONS or template) and not _INFRASTRUCTURE_DIRECTORIES.isdisjoint(
        directories.split("/")
    ):
        return FileClass.INFRASTRUCTURE
    if language in _DOCUMENTS or (language is None and _DOCUMENT_NAMES.fullmatch(name)):
        return FileClass.DOCS
    if language in _CONFIGURATIONS or language in _DATA or name.startswith(".env"):
        return FileClass.CONFIG
    if language is None and "docs" in directories.split("/"):
        return FileClass.DOCS
    return FileClass.CODE
