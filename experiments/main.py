"""The console script `mntp`: one table of commands, each imported only when it is called."""

import importlib
import inspect
import os
import sys
from argparse import ArgumentError
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from jsonargparse import ArgumentParser

from experiments.config.errors import EXIT_USER_ERROR, subclasses, summarise_config_error, user_errors
from experiments.config.imports import take_imports
from experiments.config.options import Options

# Command -> (module, function, what it does). Names of two words are sub-commands.
COMMANDS = {
    "prepare": ("experiments.commands.prepare", "prepare", "turn a captioned folder of audio into a store of tokens"),
    "generate": ("experiments.commands.generate", "generate", "write sound for captions, from a trained run"),
    "export": ("experiments.commands.generate", "export", "write a trained run as config.json and model.safetensors"),
    "evaluate": ("experiments.commands.evaluate", "evaluate", "score a folder of generated audio against references"),
    "judge": ("experiments.commands.judge", "judge", "train the embedded judge of a corpus, as the shipped one was"),
    "compare": ("experiments.commands.compare", "compare", "put scored systems side by side, with paired intervals"),
    "params": ("experiments.commands.params", "params", "count the parameters of each part of a config's model"),
    "schedules": ("experiments.commands.schedules", "schedules", "draw the mask schedules of a matrix"),
    "bench load": ("experiments.bench.load", "load", "measure how fast clips are read, beside what training takes"),
    "bench head": ("experiments.bench.head", "head", "measure the solvers of the diffusion head"),
    "bench solvers": ("experiments.bench.solvers", "solvers", "draw the error of each solver by its number of steps"),
    "bench sample": ("experiments.bench.sample", "sample", "measure how fast tokens are drawn, beside a plain variant"),
    "bench scores": ("experiments.bench.scores", "bench_scores", "simulate how often equal systems are separated"),
    "bench train": ("experiments.bench.train", "train", "measure a config's training step beside its plain variant"),
    "weights list": ("experiments.commands.weights", "list_weights", "show the public checkpoints that scores need"),
    "weights fetch": ("experiments.commands.weights", "fetch", "download checkpoints by name"),
    "weights check": ("experiments.commands.weights", "check", "compare the checkpoints' sizes and sha256"),
    "ablate plan": ("experiments.commands.ablate", "plan", "show the cells of a matrix and what is done"),
    "ablate run": ("experiments.commands.ablate", "run", "run the cells that are missing, then gather the tables"),
    "ablate submit": ("experiments.commands.ablate_cluster", "submit", "give the cells that are missing to SLURM"),
    "ablate retry": ("experiments.commands.ablate_cluster", "retry", "start failed or cancelled cells again"),
    "ablate prune": ("experiments.commands.ablate_cluster", "prune", "drop the optimiser states of finished cells"),
    "ablate status": ("experiments.commands.ablate", "status", "show the state of every cell"),
    "ablate gather": ("experiments.commands.ablate", "gather", "write results.csv and the tables from finished cells"),
    "ablate report": ("experiments.commands.ablate", "report", "write report.html: everything in one offline file"),
}
LIGHTNING = ("fit", "validate", "test", "predict")


def usage() -> str:
    """What `mntp --help` prints."""
    lines = [f"  mntp {name:<30} {text}" for name, (_, _, text) in COMMANDS.items()]
    lines.append(f"  mntp {'|'.join(LIGHTNING):<30} the same as `lightning ...`: train and use one system")
    lines += [
        "",
        "Every command takes --import PACKAGE: checkpoints, models and stores may name classes of that package.",
    ]
    return "\n".join(["usage: mntp COMMAND [--help] ...", "", *lines])


def call(function: Callable[..., int | None], name: str, words: list[str]) -> int | None:
    """Parse `words` by the signature and docstring of `function`, then call it.

    Every argument is an option, with - or _ in its name and no value needed for a switch; only a list of captions
    stands on the line as it is. A list of files is an option that may be given several times. A group of options (a
    dataclass of `Options`) stands for its fields. A part (a `Callable` that gives a tokenizer, say) is the name of a
    class and its arguments, `--tokenizer NAME --tokenizer.path ...`; a command that takes parts takes them from a YAML
    file too, with `--config`.
    """
    annotations = {key: argument.annotation for key, argument in inspect.signature(function).parameters.items()}
    parts = {key: kinds for key, kind in annotations.items() if (kinds := _classes(kind))}
    parser = _parser(function, name, bool(parts))
    switches = {f"--{key}" for key, kind in annotations.items() if kind is bool}
    try:
        parsed = parser.parse_args(_options(words, switches))
    except ArgumentError as error:
        raise ValueError(f"mntp {name}: {_mistake(str(error), parts)}") from error
    options: dict[str, Any] = parser.instantiate(parsed).as_dict()
    return function(**{key: _argument(key, kind, options) for key, kind in annotations.items()})


def _argument(key: str, annotation: Any, options: Mapping[str, Any]) -> Any:
    """The value of a command's argument, of the options that were parsed."""
    if _is_group(annotation):
        return annotation(**{field.name: options[field.name] for field in fields(annotation)})
    return [Path(file) for file in options[key]] if annotation == list[Path] else options[key]


def _is_group(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, Options)


def _parser(function: Callable[..., int | None], name: str, from_file: bool) -> ArgumentParser:
    """The parser of a command; `from_file` if it takes its options from a YAML file, too."""
    description = (function.__doc__ or "").partition("\n")[0]
    parser = ArgumentParser(prog=f"mntp {name}", description=description, exit_on_error=not from_file)
    if from_file:
        parser.add_argument("--config", action="config", help="YAML file of these options")
    added: set[str | int] = set()
    for key, argument in inspect.signature(function).parameters.items():
        if _is_group(argument.annotation):
            parser.add_class_arguments(argument.annotation)
        elif argument.annotation in (list[str], list[str] | None):
            parser.add_argument(key, nargs="+" if argument.default is inspect.Parameter.empty else "*", type=str)
        elif argument.annotation == list[Path]:
            again = "may be given several times"
            parser.add_argument(f"--{key}", action="append", type=str, required=True, metavar="FILE", help=again)
        else:
            continue
        added.add(key)
    parser.add_function_arguments(function, skip=added)
    return parser


def _classes(annotation: Any) -> list[type]:
    """The classes that a part may be, of the abstract one in its annotation; none where it is no part."""
    base = annotation if inspect.isclass(annotation) else next(iter(get_args(annotation)[1:]), None)
    return subclasses(base) if inspect.isclass(base) and inspect.isabstract(base) else []


def _mistake(message: str, parts: dict[str, list[type]]) -> str:
    """One line for what jsonargparse says; parts inside of parts count as well."""
    if "Parser key" not in message:
        return " ".join(message.split())
    signatures = [inspect.signature(cls) for kinds in parts.values() for cls in kinds]
    inner = {key: _classes(argument.annotation) for each in signatures for key, argument in each.parameters.items()}
    names = {key: [cls.__name__ for cls in kinds] for key, kinds in (inner | parts).items()}
    return summarise_config_error(message, inner, names).removeprefix("config: ")


def _options(words: list[str], switches: set[str]) -> list[str]:
    """Spell options' names with underscores, and a switch as `--name=true`, or with the value that follows it."""
    spelt: list[str] = []
    for word in words:
        if spelt and spelt[-1] in switches:
            if word in ("true", "false"):
                spelt[-1] += f"={word}"
                continue
            spelt[-1] += "=true"
        key, equals, value = word.partition("=")
        option = f"--{key[2:].replace('-', '_')}{equals}{value}"
        spelt.append(option if word.startswith("--") else word)
    return [f"{word}=true" if word in switches else word for word in spelt]


def main() -> None:
    """Find the command and hand it the rest of the line."""
    # OpenMP's threads spin while they wait. On cores that others use as well that costs ten times what it saves; a
    # short spin costs nothing on idle ones. Has to be set before torch is imported, here and in child processes.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    with user_errors():
        words = sys.argv[1:] = take_imports(sys.argv[1:])
    if not words or words[0] in ("-h", "--help"):
        print(usage())  # noqa: T201
        return
    if words[0] in LIGHTNING:
        importlib.import_module("experiments.config.lightning_cli").main()
        return
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            module, function, _ = COMMANDS[name]
            with user_errors():
                sys.exit(call(getattr(importlib.import_module(module), function), name, words[length:]))
    print(f"error: mntp knows no command '{' '.join(words[:2])}'\n\n{usage()}", file=sys.stderr)  # noqa: T201
    sys.exit(EXIT_USER_ERROR)
