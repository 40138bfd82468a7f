"""What settings there are: each one's name, type, default and meaning.

The file, the environment, flags, `config.get` and `etc/hybridd.toml` are made from this table and
from the switches of the formats that are installed (`backends/switches`). Where a value comes from
and which source wins is `settings`' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybridd.core.fields import Bool, Choice, Field, Float, Int, ListOf, OneOf, Text
from hybridd.core.unit_fields import Duration, Minutes, Size
from hybridd.core.web_fields import HostName, Listed, ListenAddress, ModelMap, Origin


@dataclass(frozen=True, slots=True)
class Key:
    """One setting.

    Attributes:
        live: A change takes effect at once; otherwise at the next start.
        variable: An environment variable beside `environment`, of the system that this succeeds.
        variable_field: How that variable is read, where not as everywhere.
    """

    name: str
    field: Field
    default: Any
    description: str
    live: bool = True
    variable: str = ""
    variable_field: Field | None = None

    @property
    def environment(self) -> str:
        """`catalog.model_dirs` is HYBRIDD_CATALOG_MODEL_DIRS."""
        return "HYBRIDD_" + self.name.upper().replace(".", "_")


_ALL = (
    Key(
        "server.socket",
        Text(0, 4096),
        "",
        "Path of the Unix socket. Empty: $HYBRIDD_SOCKET, else "
        "$XDG_RUNTIME_DIR/hybridd/hybridd.sock, else $XDG_STATE_HOME/hybridd/hybridd.sock.",
        live=False,
    ),
    Key(
        "server.max_line_bytes",
        Int(4096, 1024**3),
        16 * 1024 * 1024,
        "The longest line (one JSON-RPC message) that a client may send, in bytes.",
        live=False,
    ),
    Key(
        "server.slow_consumer_bytes",
        Int(65536, 1024**3),
        8 * 1024 * 1024,
        "A connection whose client lets this many bytes pile up is ended.",
        live=False,
    ),
    Key(
        "server.slow_consumer_seconds",
        Float(1, 86400),
        60.0,
        "A connection whose client reads nothing for this long while output waits is ended.",
        live=False,
    ),
    Key(
        "catalog.model_dirs",
        ListOf(Text(1, 4096), max_length=256, separator=":"),
        ["$XDG_DATA_HOME/hybridd/models"],
        "Directories with models. ~ and environment variables are expanded. EXTERNAL_MODELS_DIR "
        "adds to them. In the environment, separate them by colons.",
    ),
    Key("catalog.demo", Bool(), True, "List the two small demo models that come with hybridd."),
    Key(
        "catalog.lmstudio",
        Bool(),
        True,
        "List LM Studio's models (~/.lmstudio/models, ~/.cache/lm-studio/models).",
    ),
    Key(
        "catalog.hub",
        Bool(),
        True,
        "List the models in the Hugging Face hub's cache (HF_HUB_CACHE, HF_HOME, "
        "~/.cache/huggingface/hub).",
    ),
    Key(
        "catalog.llamacpp",
        Bool(),
        True,
        "List the models that llama.cpp downloaded (LLAMA_CACHE, ~/.cache/llama.cpp).",
    ),
    Key(
        "catalog.ollama",
        Bool(),
        True,
        "List Ollama's models (OLLAMA_MODELS, ~/.ollama/models, /usr/share/ollama/.ollama/models).",
    ),
    Key(
        "catalog.settle_seconds",
        Float(0, 3600),
        1.0,
        "A file whose size and time of change stood still for this long counts as complete.",
    ),
    Key(
        "catalog.reconcile_minutes",
        Float(0.01, 1440),
        5.0,
        "A full scan runs this often beside the live watching, which may lose events.",
    ),
    Key(
        "models.smart_switching",
        Bool(),
        True,
        "An inference request loads its model when it is not loaded, making room if need be.",
        variable="ENABLE_SMART_SWITCHING",
    ),
    Key(
        "models.keepalive",
        Duration(),
        300.0,
        'How long an idle model stays loaded, in seconds or as "5m"; 0 unloads at once, negative '
        "is for ever. MODEL_KEEPALIVE_MINUTES says it in minutes.",
        variable="MODEL_KEEPALIVE_MINUTES",
        variable_field=Minutes(),
    ),
    Key(
        "models.auto_context",
        OneOf((Choice((0,)), Int(256, 2**31 - 1))),
        8192,
        'The longest context, in tokens, that a load with context_length "auto" takes; a model '
        "made for less gets less. It keeps a KV cache for 128k tokens, which many models were made "
        "for, from taking more memory than the weights. 0 for no cap: as long as the model was "
        "made for and memory has room for.",
    ),
    Key(
        "kv.host_cache",
        Size(),
        "512MiB",
        "Main memory in which a loaded GGUF model keeps the states of conversations that had to "
        "leave its KV cache, so that one that goes on later is not computed anew. It is reserved "
        "with the model, after everything else and never more than a quarter of the memory that "
        'is free then: no model leaves for it. Bytes, "1GiB", or a share of the main memory; 0 '
        "keeps none. Takes effect at a model's next load.",
    ),
    Key(
        "kv.persist",
        Size(),
        0,
        "Disk space for the states of conversations of all GGUF models together, which then "
        "outlast an unload and a restart. They are written under $XDG_CACHE_HOME/hybridd/kv, "
        "readable for you alone, and hold what was said in the conversations; those that were "
        'not used for the longest time go first. Bytes, "10GiB", or a share of the disk; 0 keeps '
        "none and removes those that were kept. Takes effect at a model's next load.",
    ),
    Key(
        "limits.ram_max",
        Size(),
        "80%",
        'The most main memory that all models together may use: bytes, "16GiB", or a share of the '
        "machine's (or the control group's) total.",
    ),
    Key("limits.vram_max", Size(), "95%", "The same for each GPU's memory."),
    Key("limits.max_loaded", Int(0, 1000), 0, "The most models loaded at a time; 0 for no limit."),
    Key(
        "limits.max_queue",
        Int(1, 100_000),
        512,
        "The most requests that may wait for one model; past it a request is refused as busy.",
    ),
    Key(
        "workers.templates",
        Choice(("auto", "always", "never")),
        "auto",
        "Template processes import an engine's libraries once and fork workers in milliseconds. "
        "auto: started at low priority once the catalog has a model of the format (the packaged "
        "ones do not count) and 1 GiB of memory is free, else with the first load; ended when idle "
        "or in the way of a model. always: from the start, for every format. never: each worker "
        "imports for itself.",
        live=False,
    ),
    Key(
        "workers.template_keepalive",
        Duration(),
        600.0,
        'How long an idle template stays when workers.templates is "auto".',
        live=False,
    ),
    Key(
        "workers.kept_vocabularies",
        Int(0, 1000),
        4,
        "How many GGUF models' vocabularies stay in memory when their model has left, so that it "
        "comes back in a fraction of the time: some 50 MB each for 150,000 tokens, given up "
        "after workers.template_keepalive and where memory is short. Only where llama.cpp uses "
        "no GPU and workers.templates is not never. 0: none.",
        live=False,
    ),
    Key(
        "workers.stop_seconds",
        Float(0.1, 600),
        10.0,
        "How long a worker may take to stop when asked, before SIGTERM and then SIGKILL.",
    ),
    Key(
        "http.socket",
        Text(0, 4096),
        "",
        "Path of the HTTP gateway's Unix socket, which its owner alone can use, without a token: "
        "curl --unix-socket PATH http://localhost/v1/models. Empty: http.sock beside the "
        "daemon's own. none: no such socket.",
        live=False,
    ),
    Key(
        "http.listen",
        ListenAddress(),
        "",
        "Where the HTTP gateway listens on TCP, such as 127.0.0.1:4114. Empty: nowhere. An address "
        'that the network reaches (0.0.0.0) is taken only with http.token "auto", and the names '
        "that others call this machine by go into http.allow_hosts; what is sent can be read on "
        "the way, so ssh -L or a reverse proxy with TLS to 127.0.0.1 is the better choice.",
    ),
    Key(
        "http.token",
        Choice(("auto", "none")),
        "auto",
        "auto: requests over TCP need the token, which is made at first need "
        "($XDG_STATE_HOME/hybridd/http_token; hybridctl http token prints it). none: every program "
        "and user of this machine may ask. Checks of Host and Origin stay either way.",
    ),
    Key(
        "http.allow_origins",
        Listed(Origin(), max_length=256),
        [],
        "Origins whose pages may ask in a browser, such as http://localhost:3000. The gateway's "
        "own page always may. In the environment, separate them by commas.",
    ),
    Key(
        "http.allow_hosts",
        Listed(HostName(), max_length=256),
        [],
        "More names by which requests may call the gateway, such as box.lan or "
        "host.docker.internal; localhost and the address it listens on are known. In the "
        "environment, separate them by commas.",
    ),
    Key(
        "http.max_connections",
        Int(1, 100_000),
        1024,
        "The most HTTP connections at a time; those beyond wait to be accepted.",
    ),
    Key(
        "http.max_body_bytes",
        Int(1024, 1024**3),
        32 * 1024 * 1024,
        "The longest body of a request, in bytes, unpacked.",
    ),
    Key(
        "http.model_map",
        ModelMap(),
        {},
        "Models for names that clients insist on: each name or pattern (with *) and the model that "
        "is meant. A model that has the name itself goes before.",
    ),
    Key(
        "log.level",
        Choice(("debug", "info", "warning", "error")),
        "info",
        "How much the daemon logs to standard error (the journal, under systemd).",
    ),
)
KEYS: Mapping[str, Key] = {key.name: key for key in _ALL}
