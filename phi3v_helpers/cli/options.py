"""What several commands have in common."""


def add_command(commands, name, run, help, description=None):
    """A command's own parser, with the options that all of them have."""
    parser = commands.add_parser(name, help=help, description=description or f"{help}.")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_model_options(parser):
    parser.add_argument(
        "--model", default="auto", help='"auto", "tiny", "phi-3-vision", a Hub id or a folder (default: auto)'
    )
    add_machine_options(parser)


def add_machine_options(parser):
    parser.add_argument(
        "--device", default="auto", help='"auto", "cpu", "cuda", "cuda:1" or "mps" (default: auto)'
    )
    parser.add_argument(
        "--dtype", default="auto", help='"auto", "float32", "bfloat16" or "float16" (default: auto)'
    )


def given(options, names):
    """{name: value} of those that were given."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}
