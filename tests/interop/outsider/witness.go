package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// witness serves one witness of one log until standard input ends: torchwood signs, sumdb/tlog checks the proofs.
func witness(vkey, name string) error {
	log, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	signer, err := torchwood.NewCosignatureSigner(name, private)
	if err != nil {
		return err
	}
	one := &watcher{log: log, signer: signer}
	server := httptest.NewServer(http.HandlerFunc(one.addCheckpoint))
	defer server.Close()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"url": server.URL, "key": signer.Verifier().String()}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

type watcher struct {
	turn   sync.Mutex
	log    note.Verifier
	signer note.Signer
	seen   tlog.Tree
}

func (w *watcher) addCheckpoint(out http.ResponseWriter, in *http.Request) {
	w.turn.Lock()
	defer w.turn.Unlock()
	body, err := io.ReadAll(io.LimitReader(in.Body, 1<<20))
	head, raw, found := bytes.Cut(body, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	old, wrong := strconv.ParseInt(strings.TrimPrefix(lines[0], "old "), 10, 64)
	if err != nil || !found || wrong != nil || !strings.HasPrefix(lines[0], "old ") || in.URL.Path != "/add-checkpoint" {
		http.Error(out, "not a request", http.StatusBadRequest)
		return
	}
	proof := make(tlog.TreeProof, len(lines)-1)
	for at, line := range lines[1:] {
		if proof[at], err = tlog.ParseHash(line); err != nil {
			http.Error(out, "not a proof", http.StatusBadRequest)
			return
		}
	}
	policy := torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(w.log.Name()), torchwood.SingleVerifierPolicy(w.log))
	next, opened, err := torchwood.VerifyCheckpoint(raw, policy)
	switch {
	case err != nil:
		http.Error(out, err.Error(), http.StatusForbidden)
		return
	case old != w.seen.N:
		out.Header().Set("Content-Type", "text/x.tlog.size")
		out.WriteHeader(http.StatusConflict)
		fmt.Fprintf(out, "%d\n", w.seen.N)
		return
	case old > 0 && tlog.CheckTree(proof, next.N, next.Hash, old, w.seen.Hash) != nil:
		http.Error(out, "not proven", http.StatusUnprocessableEntity)
		return
	}
	signed, err := note.Sign(&note.Note{Text: opened.Text}, w.signer)
	if err != nil {
		http.Error(out, err.Error(), http.StatusInternalServerError)
		return
	}
	w.seen = next.Tree
	_, _ = out.Write(signed[bytes.LastIndex(signed, []byte("\n\n"))+2:])
}

// witnessed holds a checkpoint against a policy as torchwood reads it, and tells its size.
func witnessed(policyFile, noteFile string) error {
	text, err := os.ReadFile(policyFile)
	if err != nil {
		return err
	}
	policy, err := torchwood.ParsePolicy(text)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(noteFile)
	if err != nil {
		return err
	}
	head, _, err := torchwood.VerifyCheckpoint(raw, policy)
	if err != nil {
		return err
	}
	_, err = fmt.Println(head.N)
	return err
}
