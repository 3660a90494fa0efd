package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/torchwood"
	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// walked is what was found in one copy.
type walked struct {
	Copy    string `json:"copy"`
	Size    int64  `json:"size"`
	Entries string `json:"entries"` // SHA-256 over the leaf hashes, in order
}

func walk(dir, vkey string) error {
	copies, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, one := range copies {
		found, err := walkCopy(filepath.Join(dir, one.Name()), vkey)
		if err != nil {
			return fmt.Errorf("%s: %w", one.Name(), err)
		}
		found.Copy = one.Name()
		if err := out.Encode(found); err != nil {
			return err
		}
	}
	return nil
}

func walkCopy(dir, vkey string) (*walked, error) {
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	head, err := checkpoints(server.URL, vkey)
	if err != nil {
		return nil, err
	}
	if err := onlyTiles(dir, head.N); err != nil {
		return nil, err
	}
	digest, err := entries(server.URL, head)
	if err != nil {
		return nil, err
	}
	if err := tesseraProofs(server.URL, head); err != nil {
		return nil, err
	}
	return &walked{Size: head.N, Entries: digest}, nil
}

// checkpoints opens the signed note with both readers; they must agree.
func checkpoints(base, vkey string) (torchwood.Checkpoint, error) {
	none := torchwood.Checkpoint{}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return none, fmt.Errorf("the verifier key: %w", err)
	}
	fetcher, err := tesseraFetcher(base)
	if err != nil {
		return none, err
	}
	raw, err := fetcher.ReadCheckpoint(context.Background())
	if err != nil {
		return none, err
	}
	policy := torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(verifier.Name()), torchwood.SingleVerifierPolicy(verifier))
	head, _, err := torchwood.VerifyCheckpoint(raw, policy)
	if err != nil {
		return none, fmt.Errorf("torchwood on the checkpoint: %w", err)
	}
	other, rest, _, err := log.ParseCheckpoint(raw, verifier.Name(), verifier)
	if err != nil {
		return none, fmt.Errorf("transparency-dev/formats on the checkpoint: %w", err)
	}
	if other.Size != uint64(head.N) || !bytes.Equal(other.Hash, head.Hash[:]) || len(rest) != 0 {
		return none, fmt.Errorf("the two readers of checkpoints disagree: %v and %v", head, other)
	}
	return head, nil
}

// onlyTiles: every file below tile/ is a tile of a tree of this size, by the paths of tlog-tiles.
func onlyTiles(dir string, size int64) error {
	wanted := map[string]bool{}
	for _, tile := range tlog.NewTiles(torchwood.TileHeight, 0, size) {
		wanted[torchwood.TilePath(tile)] = true
		if tile.L == 0 {
			tile.L = -1
			wanted[torchwood.TilePath(tile)] = true
		}
	}
	err := filepath.WalkDir(filepath.Join(dir, "tile"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		tile, err := torchwood.ParseTilePath(name)
		if err != nil {
			return err
		}
		// NewTiles names the partial tiles that end at the size; a full tile of a level is named only when it ends there.
		if !wanted[name] && tile.W != 1<<torchwood.TileHeight {
			return fmt.Errorf("%s is no tile of a tree of %d", name, size)
		}
		delete(wanted, name)
		return nil
	})
	if os.IsNotExist(err) && size == 0 {
		return nil
	}
	if err == nil && len(wanted) > 0 {
		return fmt.Errorf("tiles are missing: %v", wanted)
	}
	return err
}

// entries reads every entry with torchwood, which proves each bundle against the root as it goes.
func entries(base string, head torchwood.Checkpoint) (string, error) {
	fetcher, err := torchwood.NewTileFetcher(base + "/")
	if err != nil {
		return "", err
	}
	reader, err := torchwood.NewClient(fetcher)
	if err != nil {
		return "", err
	}
	ctx, hashes, count := context.Background(), sha256.New(), int64(0)
	for index, entry := range reader.AllEntries(ctx, head.Tree, 0) {
		if index != count {
			return "", fmt.Errorf("entry %d came as entry %d", count, index)
		}
		hash := tlog.RecordHash(entry)
		hashes.Write(hash[:])
		count++
	}
	if err := reader.Err(); err != nil {
		return "", fmt.Errorf("torchwood on the entries: %w", err)
	}
	if count != head.N {
		return "", fmt.Errorf("%d entries of %d", count, head.N)
	}
	for _, index := range picked(head.N) {
		entry, path, err := reader.Entry(ctx, head.Tree, index)
		if err != nil {
			return "", fmt.Errorf("torchwood on entry %d: %w", index, err)
		}
		if err := tlog.CheckRecord(path, head.N, head.Hash, index, tlog.RecordHash(entry)); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", hashes.Sum(nil)), nil
}

// tesseraProofs builds proofs from the served tiles with tessera's client and checks them with transparency-dev/merkle.
func tesseraProofs(base string, head torchwood.Checkpoint) error {
	fetcher, err := tesseraFetcher(base)
	if err != nil || head.N == 0 {
		return err
	}
	ctx, size := context.Background(), uint64(head.N)
	builder, err := client.NewProofBuilder(ctx, size, fetcher.ReadTile)
	if err != nil {
		return err
	}
	reader, err := torchwood.NewTileFetcher(base + "/")
	if err != nil {
		return err
	}
	hashes := torchwood.TileHashReaderWithContext(ctx, head.Tree, reader)
	for _, picked := range picked(head.N) {
		index := uint64(picked)
		bundle, err := client.GetEntryBundle(ctx, fetcher.ReadEntryBundle, index/256, size)
		if err != nil {
			return err
		}
		path, err := builder.InclusionProof(ctx, index)
		if err != nil {
			return err
		}
		leaf := rfc6962.DefaultHasher.HashLeaf(bundle.Entries[index%256])
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, leaf, path, head.Hash[:]); err != nil {
			return fmt.Errorf("tessera on entry %d: %w", index, err)
		}
		old, err := tlog.TreeHash(picked+1, hashes)
		if err != nil {
			return err
		}
		growth, err := builder.ConsistencyProof(ctx, index+1, size)
		if err != nil {
			return err
		}
		if err := proof.VerifyConsistency(rfc6962.DefaultHasher, index+1, size, growth, old[:], head.Hash[:]); err != nil {
			return fmt.Errorf("tessera from %d entries on: %w", index+1, err)
		}
	}
	return nil
}

func tesseraFetcher(base string) (*client.HTTPFetcher, error) {
	root, err := url.Parse(strings.TrimSuffix(base, "/") + "/")
	if err != nil {
		return nil, err
	}
	return client.NewHTTPFetcher(root, nil)
}

// picked are entries at the edges of tiles and trees.
func picked(size int64) []int64 {
	var found []int64
	for _, index := range []int64{0, 1, size / 2, 254, 255, 256, size - 2, size - 1} {
		if index >= 0 && index < size {
			found = append(found, index)
		}
	}
	return found
}
