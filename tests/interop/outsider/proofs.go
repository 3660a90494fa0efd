package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/tlog"
)

// claim is a proof and what it is said to prove. Bytes are base64, as encoding/json has them.
type claim struct {
	Kind   string   `json:"kind"` // "inclusion" or "consistency"
	What   string   `json:"what,omitempty"`
	Index  uint64   `json:"index,omitempty"`
	Leaf   []byte   `json:"leaf,omitempty"`
	Old    uint64   `json:"old,omitempty"`
	OldTop []byte   `json:"old_root,omitempty"`
	Size   uint64   `json:"size"`
	Root   []byte   `json:"root"`
	Hashes [][]byte `json:"hashes"`
	Holds  bool     `json:"holds"`
}

// proofs checks each claim; all must hold for both libraries.
func proofs(in io.Reader) error {
	lines := json.NewDecoder(bufio.NewReader(in))
	count := 0
	for lines.More() {
		var one claim
		if err := lines.Decode(&one); err != nil {
			return err
		}
		if err := merkleSays(one); err != nil {
			return fmt.Errorf("claim %d: transparency-dev/merkle: %w", count, err)
		}
		if err := tlogSays(one); err != nil {
			return fmt.Errorf("claim %d: golang.org/x/mod: %w", count, err)
		}
		count++
	}
	_, err := fmt.Fprintln(os.Stdout, count)
	return err
}

func merkleSays(one claim) error {
	if one.Kind == "inclusion" {
		return proof.VerifyInclusion(rfc6962.DefaultHasher, one.Index, one.Size, one.Leaf, one.Hashes, one.Root)
	}
	return proof.VerifyConsistency(rfc6962.DefaultHasher, one.Old, one.Size, one.Hashes, one.OldTop, one.Root)
}

// tlogSays asks the second library. It knows no tree of size 0 and cannot be asked about hashes of another length.
func tlogSays(one claim) error {
	path := make([]tlog.Hash, len(one.Hashes))
	for at, hash := range one.Hashes {
		if copy(path[at][:], hash) != tlog.HashSize || len(hash) != tlog.HashSize {
			return fmt.Errorf("hash %d has %d bytes", at, len(hash))
		}
	}
	var root, other tlog.Hash
	copy(root[:], one.Root)
	if one.Kind == "inclusion" {
		copy(other[:], one.Leaf)
		return tlog.CheckRecord(path, int64(one.Size), root, int64(one.Index), other)
	}
	copy(other[:], one.OldTop)
	return tlog.CheckTree(path, int64(one.Size), root, int64(one.Old), other)
}
