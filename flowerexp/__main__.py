"""The command flowerexp, also `python -m flowerexp`."""

import os
import re
import sys


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["run"]:  # Hydra parses these words, and no other command is imported
        from flowerexp.cli import run

        run.main(words[1:])
    elif words[:1] in (["--shell-completion"], ["-sc"]):
        complete(words)
    elif words and re.match(r"[+~]*[\w./@]+=", words[0]):
        sys.exit(f"flowerexp: {words[0]} is not a command: did you mean flowerexp run {words[0]}?")
    else:
        from flowerexp.cli import main as commands

        commands.main()


def complete(words: list[str]) -> None:
    """Prints Hydra's completion script, or the completions of the shell's COMP_LINE."""
    from flowerexp.cli import run

    line = re.fullmatch(r"\s*(\S+)(\s+run\b)?\s+(.*)", os.environ.get("COMP_LINE", "x  "))
    if line and line[2]:
        os.environ["COMP_LINE"] = f"{line[1]} {line[3]}"
    elif "query" in words[-1]:
        from flowerexp.cli import main as commands

        if line and " " not in line[3]:  # what follows a command is an option or a file
            print(*commands.names())
        return
    run.complete(words)


if __name__ == "__main__":
    main()
