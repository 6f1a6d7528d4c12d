"""The servers that tests stand on; a test starts only those whose fixtures it names."""

pytest_plugins = (
    "tests.servers",
    "tests.engines",
    "tests.s3_servers",
    "tests.api_servers",
    "tests.api_keys",
)
