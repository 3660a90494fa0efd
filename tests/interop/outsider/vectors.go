package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"filippo.io/torchwood"
)

const origin = "log.example/audit"

// noteCase is a signed note, or what is passed off as one, and who takes it.
type noteCase struct {
	What    string `json:"what"`
	Note    []byte `json:"note"`
	XMod    bool   `json:"x_mod"`     // golang.org/x/mod/sumdb/note opens it and sumdb/tlog would read the tree
	Wood    bool   `json:"torchwood"` // filippo.io/torchwood takes it as a checkpoint of this origin
	Formats bool   `json:"formats"`   // transparency-dev/formats takes it
	Size    int64  `json:"size"`
	Root    []byte `json:"root,omitempty"`
}

type keyCase struct {
	What  string `json:"what"`
	Key   string `json:"key"`
	Taken bool   `json:"x_mod"`
}

func vectors(dir string) error {
	keys, notes := noteVectors()
	proofs, err := proofVectors()
	if err != nil {
		return err
	}
	if err := write(filepath.Join(dir, "keys.jsonl"), keys); err != nil {
		return err
	}
	if err := write(filepath.Join(dir, "notes.jsonl"), notes); err != nil {
		return err
	}
	return write(filepath.Join(dir, "proofs.jsonl"), proofs)
}

// write puts one case on a line, so that a change shows as one.
func write[T any](path string, cases []T) error {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	for _, one := range cases {
		if err := encoder.Encode(one); err != nil {
			return err
		}
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

// The key of the vectors; its secret is public.
func logKey(name string, salt byte) (string, func(text string) []byte, []byte, uint32) {
	seed := sha256.Sum256([]byte{salt})
	private := ed25519.NewKeyFromSeed(seed[:])
	public := append([]byte{1}, private.Public().(ed25519.PublicKey)...)
	digest := sha256.Sum256(append([]byte(name+"\n"), public...))
	id := binary.BigEndian.Uint32(digest[:])
	vkey := fmt.Sprintf("%s+%08x+%s", name, id, base64.StdEncoding.EncodeToString(public))
	return vkey, func(text string) []byte { return ed25519.Sign(private, []byte(text)) }, public, id
}

func line(name string, id uint32, signature []byte) string {
	raw := binary.BigEndian.AppendUint32(nil, id)
	return "— " + name + " " + base64.StdEncoding.EncodeToString(append(raw, signature...)) + "\n"
}

// noteVectors gives the keys, the first of which signed the notes, and the notes.
func noteVectors() ([]keyCase, []noteCase) {
	vkey, sign, public, id := logKey(origin, 1)
	_, signOther, _, idOther := logKey(origin, 2)
	_, signWitness, _, idWitness := logKey("witness.example/w1", 3)
	root := sha256.Sum256([]byte("root"))
	root64 := base64.StdEncoding.EncodeToString(root[:])
	text := origin + "\n7\n" + root64 + "\n"
	mine := line(origin, id, sign(text))
	signed := func(text string) string { return text + "\n" + line(origin, id, sign(text)) }
	flipped := sign(text)
	flipped[0] ^= 1
	loose := root64[:42] + string(root64[42]+1) + "="

	var notes []noteCase
	add := func(what, raw string) { notes = append(notes, judged(vkey, what, raw)) }

	add("a checkpoint", signed(text))
	add("with an extension line", signed(text+"extension\n"))
	add("with an extension line that is empty", signed(text+"\nextension\n"))
	add("of an empty tree", signed(origin+"\n0\n"+base64.StdEncoding.EncodeToString(sum(""))+"\n"))
	add("of an empty tree with another root", signed(origin+"\n0\n"+root64+"\n"))
	add("with a cosignature after it", signed(text)+line("witness.example/w1", idWitness, signWitness(text)))
	add("with a cosignature before it", text+"\n"+line("witness.example/w1", idWitness, signWitness(text))+mine)
	add("with a line of an unknown algorithm", signed(text)+"— other.example "+base64.StdEncoding.EncodeToString([]byte("0000\xffanything"))+"\n")
	add("signed twice", signed(text)+mine)
	add("signed by another key of the same name too", text+"\n"+line(origin, idOther, signOther(text))+mine)
	add("signed by another key of the same name only", text+"\n"+line(origin, idOther, signOther(text)))
	add("another key's signature under this key's id", text+"\n"+line(origin, id, signOther(text)))
	add("a bad signature under this key's id, then the good one", text+"\n"+line(origin, id, flipped)+mine)
	add("the good signature, then a bad one under this key's id", text+"\n"+mine+line(origin, id, flipped))
	add("this key's signature under another name", text+"\n"+line("other.example", id, sign(text)))
	add("a signature that is cut", text+"\n"+line(origin, id, sign(text)[:63]))
	add("a signature of no bytes", text+"\n"+line(origin, id, nil))
	add("a signature with more behind it", text+"\n"+line(origin, id, append(sign(text), 0)))
	add("a foreign line with an id alone", signed(text)+"— other.example "+base64.StdEncoding.EncodeToString([]byte("0000"))+"\n")
	add("a foreign line that is no base64", signed(text)+"— other.example !!!!\n")
	add("a foreign line without a name", signed(text)+"— "+base64.StdEncoding.EncodeToString([]byte("00000"))+"\n")
	add("a foreign line with a plus in its name", signed(text)+line("a+b", 1, []byte("anything")))
	add("a foreign line with three words", signed(text)+"— other.example AAAAAAAA more\n")
	add("a line that is no signature", signed(text)+"anything\n")
	add("a hyphen in place of the dash", text+"\n"+strings.Replace(mine, "—", "-", 1))
	add("no empty line", text+mine)
	add("no signature", text+"\n")
	add("no signature and no empty line", text)
	add("nothing", "")
	add("no end of the last line", strings.TrimSuffix(signed(text), "\n"))
	add("an empty line at the end", signed(text)+"\n")
	add("an empty line between text and signatures twice", text+"\n\n"+mine)
	add("CRLF", strings.ReplaceAll(signed(text), "\n", "\r\n"))
	add("CRLF in what is signed", signed(strings.ReplaceAll(text, "\n", "\r\n")))
	add("a byte order mark", "\ufeff"+signed(text))
	add("NUL in what is signed", signed(text+"\x00\n"))
	add("a control character in what is signed", signed(text+"\x1b[2J\n"))
	add("a tab in what is signed", signed(text+"a\tb\n"))
	add("no UTF-8 in what is signed", signed(text+"\xff\xfe\n"))
	add("no UTF-8 in a foreign line", signed(text)+"— \xff\xfe AAAAAAAA\n")
	add("space at the end of the size", signed(origin+"\n7 \n"+root64+"\n"))
	add("space at the end of the origin", signed(origin+" \n7\n"+root64+"\n"))
	add("space at the end of the root", signed(origin+"\n7\n"+root64+" \n"))
	add("another origin", signed("log.example/other\n7\n"+root64+"\n"))
	add("no origin", signed("\n7\n"+root64+"\n"))
	add("no root", signed(origin+"\n7\n"))
	add("a root that is empty", signed(origin+"\n7\n\n"))
	add("a root of 31 bytes", signed(origin+"\n7\n"+base64.StdEncoding.EncodeToString(root[:31])+"\n"))
	add("a root of 33 bytes", signed(origin+"\n7\n"+base64.StdEncoding.EncodeToString(append(root[:], 0))+"\n"))
	add("a root whose last character has bits of nothing", signed(origin+"\n7\n"+loose+"\n"))
	add("a root in the alphabet of URLs", signed(origin+"\n7\n"+base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xfb, 0xef, 0xbe}, 11)[:32])+"\n"))
	add("a root without padding", signed(origin+"\n7\n"+strings.TrimSuffix(root64, "=")+"\n"))
	for _, size := range []string{"", "-1", "+7", "07", "00", "-0", "0x7", "7.0", "7e0", "1_0", "seven", "７", "٧",
		"9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", strings.Repeat("9", 5000)} {
		add("the size is "+short(size), signed(origin+"\n"+size+"\n"+root64+"\n"))
	}
	add("a hundred cosignatures", signed(text)+strings.Repeat(line("w.example", 7, []byte("anything")), 100))
	return keyCases(vkey, public, id), notes
}

func keyCases(vkey string, public []byte, id uint32) []keyCase {
	encoded := base64.StdEncoding.EncodeToString(public)
	identified := func(name string, raw []byte) string {
		digest := sha256.Sum256(append([]byte(name+"\n"), raw...))
		return fmt.Sprintf("%s+%08x+%s", name, binary.BigEndian.Uint32(digest[:]), base64.StdEncoding.EncodeToString(raw))
	}
	var keys []keyCase
	for _, one := range [][2]string{
		{"a key", vkey},
		{"its id mistyped", fmt.Sprintf("%s+%08x+%s", origin, id^1, encoded)},
		{"its id in capitals", fmt.Sprintf("%s+%08X+%s", origin, id, encoded)},
		{"its id too short", fmt.Sprintf("%s+%07x+%s", origin, id>>4, encoded)},
		{"another name", strings.Replace(vkey, "audit", "other", 1)},
		{"no name", identified("", public)},
		{"a space in the name", identified("log example", public)},
		{"a plus in the name", identified("log+example", public)},
		{"no key", identified(origin, nil)},
		{"an unknown algorithm", identified(origin, append([]byte{250}, public[1:]...))},
		{"a key of 31 bytes", identified(origin, public[:32])},
		{"a key of 33 bytes", identified(origin, append(append([]byte{}, public...), 0))},
		{"two parts", origin + "+" + encoded},
		{"nothing", ""},
		{"a key of a private kind", strings.Replace("PRIVATE+KEY+"+vkey, "\n", "", 1)},
	} {
		_, err := note.NewVerifier(one[1])
		keys = append(keys, keyCase{What: one[0], Key: one[1], Taken: err == nil})
	}
	return keys
}

func short(text string) string {
	if len(text) > 40 {
		return fmt.Sprintf("%d digits long", len(text))
	}
	return fmt.Sprintf("%q", text)
}

func sum(text string) []byte {
	digest := sha256.Sum256([]byte(text))
	return digest[:]
}

func judged(vkey, what, raw string) noteCase {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		panic(err)
	}
	one := noteCase{What: what, Note: []byte(raw)}
	if opened, err := note.Open([]byte(raw), note.VerifierList(verifier)); err == nil {
		one.XMod = strings.HasPrefix(opened.Text, origin+"\n")
	}
	policy := torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(origin), torchwood.SingleVerifierPolicy(verifier))
	if head, _, err := torchwood.VerifyCheckpoint([]byte(raw), policy); err == nil {
		one.Wood, one.Size, one.Root = true, head.N, head.Hash[:]
	}
	if _, _, _, err := log.ParseCheckpoint([]byte(raw), origin, verifier); err == nil {
		one.Formats = true
	}
	return one
}

// proofVectors makes proofs with golang.org/x/mod and bends each of them in every way; transparency-dev/merkle judges.
func proofVectors() ([]claim, error) {
	const largest = 257
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for at, index := range indexes {
			found[at] = stored[index]
		}
		return found, nil
	})
	roots := []tlog.Hash{tlog.Hash(sum(""))}
	for n := int64(0); n < largest; n++ {
		more, err := tlog.StoredHashes(n, []byte{byte(n >> 8), byte(n)}, reader)
		if err != nil {
			return nil, err
		}
		stored = append(stored, more...)
		root, err := tlog.TreeHash(n+1, reader)
		if err != nil {
			return nil, err
		}
		roots = append(roots, root)
	}
	var claims []claim
	for _, size := range []int64{1, 2, 3, 7, 8, 257} {
		for _, index := range slices.Compact([]int64{0, size / 2, size - 1}) {
			path, err := tlog.ProveRecord(size, index, reader)
			if err != nil {
				return nil, err
			}
			leaf := tlog.RecordHash([]byte{byte(index >> 8), byte(index)})
			claims = append(claims, bent(claim{Kind: "inclusion", Index: uint64(index), Leaf: leaf[:],
				Size: uint64(size), Root: roots[size][:], Hashes: raw(path)})...)
			if old := index + 1; old <= size {
				path, err := tlog.ProveTree(size, old, reader)
				if err != nil {
					return nil, err
				}
				claims = append(claims, bent(claim{Kind: "consistency", Old: uint64(old), OldTop: roots[old][:],
					Size: uint64(size), Root: roots[size][:], Hashes: raw(path)})...)
			}
		}
	}
	for _, one := range []claim{
		{What: "from nothing", OldTop: roots[0][:]},
		{What: "from nothing, with a hash", OldTop: roots[0][:], Hashes: [][]byte{roots[3][:]}},
		{What: "from nothing with a root of something", OldTop: roots[3][:]},
	} {
		one.Kind, one.Size, one.Root = "consistency", 7, roots[7][:]
		claims = append(claims, one)
	}
	for at := range claims {
		claims[at].Holds = merkleSays(claims[at]) == nil
		if claims[at].Hashes == nil {
			claims[at].Hashes = [][]byte{}
		}
	}
	return claims, nil
}

func raw(path []tlog.Hash) [][]byte {
	found := make([][]byte, len(path))
	for at := range path {
		found[at] = path[at][:]
	}
	return found
}

// bent is the claim and what a forger would make of it.
func bent(good claim) []claim {
	good.What = "as proven"
	claims := []claim{good}
	add := func(what string, change func(*claim)) {
		one := good
		one.What = what
		one.Hashes = append([][]byte{}, good.Hashes...)
		change(&one)
		claims = append(claims, one)
	}
	add("one hash more at the end", func(one *claim) { one.Hashes = append(one.Hashes, one.Root) })
	add("one hash more at the front", func(one *claim) { one.Hashes = append([][]byte{one.Root}, one.Hashes...) })
	add("of a tree larger by one", func(one *claim) { one.Size++ })
	add("of a tree smaller by one", func(one *claim) { one.Size-- })
	add("of a tree twice as large", func(one *claim) { one.Size *= 2 })
	add("of the largest tree", func(one *claim) { one.Size = 1<<63 - 1 })
	add("of another root", func(one *claim) { one.Root = sum("other") })
	add("of an empty root", func(one *claim) { one.Root = nil })
	if good.Kind == "inclusion" {
		add("of the next entry", func(one *claim) { one.Index++ })
		add("of an entry beyond the tree", func(one *claim) { one.Index = one.Size })
		add("of another leaf", func(one *claim) { one.Leaf = sum("other") })
		add("of the root as leaf", func(one *claim) { one.Leaf = one.Root })
	} else {
		add("from a tree larger by one", func(one *claim) { one.Old++ })
		add("from a tree smaller by one", func(one *claim) { one.Old-- })
		add("from another root", func(one *claim) { one.OldTop = sum("other") })
		add("both ways round", func(one *claim) {
			one.Old, one.Size, one.OldTop, one.Root = one.Size, one.Old, one.Root, one.OldTop
		})
		add("from itself", func(one *claim) { one.Old, one.OldTop = one.Size, one.Root })
		add("from nothing", func(one *claim) { one.Old = 0 })
	}
	if count := len(good.Hashes); count > 0 {
		add("the last hash left out", func(one *claim) { one.Hashes = one.Hashes[:count-1] })
		add("the first hash left out", func(one *claim) { one.Hashes = one.Hashes[1:] })
		add("no hashes", func(one *claim) { one.Hashes = nil })
		add("the first hash altered", func(one *claim) { one.Hashes[0] = sum("other") })
		add("a hash that is cut", func(one *claim) { one.Hashes[0] = one.Hashes[0][:31] })
		add("a hash that is longer", func(one *claim) { one.Hashes[0] = append(append([]byte{}, one.Hashes[0]...), 0) })
		add("a hash that is empty", func(one *claim) { one.Hashes[0] = nil })
		if count > 1 && !bytes.Equal(good.Hashes[0], good.Hashes[1]) {
			add("two hashes swapped", func(one *claim) { one.Hashes[0], one.Hashes[1] = one.Hashes[1], one.Hashes[0] })
		}
	}
	return claims
}
