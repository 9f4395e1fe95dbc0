package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type volume struct {
	ID, Name         string
	Size             int64  // recorded, not enforced
	Snapshot, Volume string // what it was made from: a snapshot's handle, a volume's ID, or neither
}

type snapshot struct {
	ID, Name, Volume string
	Handle           string // its ID, or snap://VOLUME/ID if it lives in its volume
	Size             int64
	Cut, Ready       time.Time
}

var plain = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// idOf makes an object's ID from its name, so that a repeated create finds what the first one made.
func idOf(name string) string {
	if name == "" || plain.MatchString(name) {
		return name
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// shelf keeps the objects of one kind, a JSON file for each.
type shelf[T any] struct{ kind, dir string }

func (s shelf[T]) path(id string) string { return filepath.Join(s.dir, id+".json") }

func (s shelf[T]) get(id string) (v T, err error) {
	if !plain.MatchString(id) { // no ID of ours, so not to become part of a path
		return v, status.Errorf(codes.NotFound, "there is no %s %s", s.kind, id)
	}
	b, err := os.ReadFile(s.path(id))
	if absent(err) {
		return v, status.Errorf(codes.NotFound, "there is no %s %s", s.kind, id)
	} else if err != nil {
		return v, err
	}
	return v, json.Unmarshal(b, &v)
}

func (s shelf[T]) put(id string, v T) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := s.path(id) + "~"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, s.path(id))
}

func (s shelf[T]) remove(id string) error { return os.Remove(s.path(id)) }

// all lists the objects by ID, without those that go while it looks.
func (s shelf[T]) all() (vs []T, err error) {
	names, _ := filepath.Glob(s.path("*")) // fails for a bad pattern only
	for _, name := range names {
		v, err := s.get(strings.TrimSuffix(filepath.Base(name), ".json"))
		if err == nil {
			vs = append(vs, v)
		} else if status.Code(err) != codes.NotFound {
			return nil, err
		}
	}
	return vs, nil
}

// journal is a file of what was done, one JSON line each.
type journal struct {
	path string
	mu   sync.Mutex
}

// entry is a line of the journal. Times are nanoseconds of the wall clock.
type entry struct {
	Op       string `json:"op"` // create, cut, delete, publish or unpublish
	Volume   string `json:"volume,omitempty"`
	Snapshot string `json:"snapshot,omitempty"`
	Source   string `json:"source,omitempty"` // the snapshot or volume that a volume was made from
	Target   string `json:"target,omitempty"`
	Begin    int64  `json:"begin"`         // the call came in
	Cut      int64  `json:"cut,omitempty"` // the creation time: what was written before is in the snapshot
	End      int64  `json:"end"`           // it was done: what is written from now on is not in it
}

// add ends the driver if it cannot write: a test must not run on half a journal.
func (j *journal) add(begin time.Time, e entry) {
	e.Begin, e.End = begin.UnixNano(), time.Now().UnixNano()
	j.mu.Lock()
	defer j.mu.Unlock()
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		defer f.Close()
		err = json.NewEncoder(f).Encode(e)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// control is what control.json holds, read again by each call. The keys are the names of the fields with a
// small first letter. An unknown key is an error: no test is to pass without the fault that it asked for.
type control struct {
	CutDelay   delay // CreateSnapshot waits before the cut
	ReadyDelay delay // a snapshot is ready to use so long after its cut
	CloneDelay delay // restores and clones wait before they copy
	SlowDelete delay // DeleteVolume and DeleteSnapshot wait

	FailCreateSnapshot     int64  // so many of the next cuts fail; counted anew when the file changes
	NeverReady             bool   // no snapshot is ready while this is set
	NotRestorable          bool   // restores fail
	RestoreSizeExtra       int64  // bytes that new snapshots claim above the size of their volume
	NoCloneWhilePublished  bool   // clones of a volume in use fail
	ExhaustedOnNode        string // there is no room for volumes wanted on this node
	InVolume               bool   // new snapshots are snap://VOLUME/ID and go with their volume
	RefuseDeleteWithClones bool   // a snapshot that volumes were restored from cannot be deleted

	changed time.Time // when the file was written
}

type delay struct{ time.Duration }

func (d *delay) UnmarshalText(b []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(b))
	return err
}

// wait heeds no context: when its client gave up, a call still does its work, and the retry finds it done. The log
// tells a test when the time to kill the driver has come.
func (d delay) wait(before string) {
	if d.Duration > 0 {
		log.Printf("waits %v before %s", d.Duration, before)
		time.Sleep(d.Duration)
	}
}

func readControl(path string) (c control, err error) {
	f, err := os.Open(path)
	if absent(err) {
		return c, nil
	} else if err != nil {
		return c, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return c, err
	}
	c.changed = info.ModTime()
	read := json.NewDecoder(f)
	read.DisallowUnknownFields()
	if err := read.Decode(&c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// prepare makes the state directory and the image, once, and mounts it unless a killed driver left it mounted.
// Volumes in use hold the loop device of a driver that is gone: mount finds that and takes it again, and the
// kernel frees it with its last mount.
const prepare = `set -e; mkdir -p "$1/volumes" "$1/snapshots" "$1/pool"; cd "$1"
[ -e pool.img ] || { truncate -s "$2" pool.img~; mkfs.btrfs -q -f -m single pool.img~; mv pool.img~ pool.img; }
mountpoint -q pool || mount -t btrfs -o loop pool.img pool
mkdir -p pool/volumes pool/snapshots`

// pool is the directory on which the image is mounted.
type pool string

func (p pool) volume(id string) string   { return filepath.Join(string(p), "volumes", id) }
func (p pool) snapshot(id string) string { return filepath.Join(string(p), "snapshots", id) }

func (p pool) unmount() error { return syscall.Unmount(string(p), syscall.MNT_DETACH) }

// create makes a subvolume: an empty one, or a snapshot of src. What a killed driver left there without
// metadata goes first.
func (p pool) create(dst, src string, flags ...string) error {
	if err := p.remove(dst); err != nil {
		return err
	}
	if src == "" {
		return command("btrfs", "subvolume", "create", dst)
	}
	return command("btrfs", append([]string{"subvolume", "snapshot", src, dst}, flags...)...)
}

func (p pool) remove(path string) error {
	if _, err := os.Stat(path); absent(err) {
		return nil
	}
	return command("btrfs", "subvolume", "delete", path)
}

// published tells whether a volume is mounted anywhere. The kernel knows: there is nothing to keep.
func (p pool) published(id string) bool {
	all := mounts()
	here := slices.IndexFunc(all, func(m mounted) bool { return m.target == string(p) })
	return here >= 0 && slices.ContainsFunc(all, func(m mounted) bool {
		return m.root == "/volumes/"+id && m.device == all[here].device
	})
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// mounted says that root, a path inside a device's file system, is mounted on target.
type mounted struct{ device, root, target string }

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// mounts reads all mounts.
func mounts() (ms []mounted) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		log.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		ms = append(ms, mounted{device: f[2], root: unescape.Replace(f[3]), target: unescape.Replace(f[4])})
	}
	return ms
}
