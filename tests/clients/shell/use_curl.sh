# curl, over TCP with the token and over the Unix socket without: what the README shows.
fail() { echo "$*" >&2; exit 1; }

curl -sf -H "Authorization: Bearer $TOKEN" "$URL/v1/models" | grep -q "$GGUF" || fail models
curl -sf --unix-socket "$HTTP_SOCKET" http://localhost/v1/models | grep -q "$HF" || fail socket

ask='{"model": "'"$GGUF"'", "messages": [{"role": "user", "content": "Who are you?"}], "stream": true}'
streamed=$(curl -sfN -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \
	-d "$ask" "$URL/v1/chat/completions")
echo "$streamed" | grep -q '"finish_reason":"' || fail "no end: $streamed"
echo "$streamed" | tail -n 2 | grep -q 'data: \[DONE\]' || fail "no [DONE]: $streamed"

# A body that says what it is not, a request without the token, one for another host.
status() { curl -s -o /dev/null -w '%{http_code}' "$@"; }
[ "$(status -H "Authorization: Bearer $TOKEN" -d "$ask" "$URL/v1/chat/completions")" = 415 ] ||
	fail "a form was taken"
[ "$(status "$URL/v1/models")" = 401 ] || fail "no token was asked for"
[ "$(status -H 'Host: evil.example' -H "Authorization: Bearer $TOKEN" "$URL/v1/models")" -ge 400 ] ||
	fail "another host was served"

# The original's example.
curl -sf -H "Authorization: Bearer $TOKEN" "$URL/api/v1/models/$GGUF/load" |
	grep -q '"status":"loaded"' || fail load
# Compressed and chunked bodies.
printf %s "$ask" | gzip | curl -sf --data-binary @- -H 'Transfer-Encoding: chunked' \
	-H 'Content-Encoding: gzip' -H 'Content-Type: application/json' \
	-H "Authorization: Bearer $TOKEN" "$URL/v1/chat/completions" | grep -q DONE || fail gzip
