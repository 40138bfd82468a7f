#!/bin/sh
# What `make run` does once everything is installed: start the daemon, load both demo models, ask
# each a question, show what is loaded, say how to go on.
set -eu
BIN=$(cd "$BIN" && pwd)
mkdir -p .run
if "$BIN/hybridctl" status >/dev/null 2>&1; then
    echo "A hybridd runs already; using it."
else
    nohup "$BIN/hybridd" >.run/hybridd.log 2>&1 </dev/null &
    tries=0
    until "$BIN/hybridctl" status >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ] || ! kill -0 $! 2>/dev/null; then
            echo "hybridd did not start:" >&2
            cat .run/hybridd.log >&2
            exit 1
        fi
        sleep 0.1
    done
    echo "Started hybridd; it logs to .run/hybridd.log"
fi
for model in hybridd/demo-gguf hybridd/demo-hf; do
    echo
    echo "\$ hybridctl load $model"
    "$BIN/hybridctl" load "$model"
    echo "\$ hybridctl run $model \"How do I load a model?\""
    "$BIN/hybridctl" run "$model" "How do I load a model?"
done
echo
echo "\$ hybridctl ps"
"$BIN/hybridctl" ps
cat <<EOF

hybridd is running. Go on with
    $BIN/hybridctl list                    what was found on this machine
    $BIN/hybridctl chat hybridd/demo-gguf  a conversation
    $BIN/hybridctl service install         run it as a user service from now on
Put models into ~/.local/share/hybridd/models, or name your own folders:
    $BIN/hybridctl config set catalog.model_dirs '["/path/to/models"]'
Stop it with
    $BIN/hybridctl stop
EOF
