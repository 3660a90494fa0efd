// Command outsider checks what leasehold publishes with other people's implementations of the same formats, and makes
// the vectors in tests/vectors/tlog with them. It knows nothing of leasehold's own code.
//
//	outsider walk DIR VKEY   DIR/* are copies of the log; each is served as static files and read by two clients
//	outsider proofs          JSON lines of proofs on standard input; each is checked by two libraries
//	outsider otlp            an OTLP/HTTP body of logs on standard input, as the OpenTelemetry Collector reads it
//	outsider witness VKEY NAME      a witness of that log, until standard input ends; tells its URL and key
//	outsider witnessed POLICY NOTE  whether the checkpoint has what the policy asks for; tells its size
//	outsider vectors DIR     writes keys.jsonl, notes.jsonl and proofs.jsonl, with the verdict of those libraries
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "walk":
		return walk(args[1], args[2])
	case len(args) == 1 && args[0] == "proofs":
		return proofs(os.Stdin)
	case len(args) == 1 && args[0] == "otlp":
		return otlp(os.Stdin)
	case len(args) == 3 && args[0] == "witness":
		return witness(args[1], args[2])
	case len(args) == 3 && args[0] == "witnessed":
		return witnessed(args[1], args[2])
	case len(args) == 2 && args[0] == "vectors":
		return vectors(args[1])
	}
	return fmt.Errorf("usage: outsider walk DIR VKEY | proofs | otlp | witness VKEY NAME | witnessed POLICY NOTE | vectors DIR")
}
