"""The typer commands: parse, call one stage, print."""
