package main

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// call is a call on one object: when it began, the control file at that time, and the end of its claim.
type call struct {
	control
	begin time.Time
	end   func()
}

// begin claims an object. A second call on it is told to come back, as CSI wants; others are not held up.
func (d *driver) begin(kind, id string) (c call, err error) {
	c.begin = time.Now()
	if id == "" {
		return c, status.Errorf(codes.InvalidArgument, "the %s's name is missing", kind)
	}
	if c.control, err = readControl(filepath.Join(d.state, "control.json")); err != nil {
		return c, err
	}
	object := kind + " " + id
	if _, busy := d.busy.LoadOrStore(object, nil); busy {
		return c, status.Errorf(codes.Aborted, "another call is at work on %s", object)
	}
	c.end = func() { d.busy.Delete(object) }
	return c, nil
}

// idIn finds the snapshot's ID, which is all of the handle or what follows its last slash.
func idIn(handle string) string { return handle[strings.LastIndex(handle, "/")+1:] }

func (d *driver) snapshot(handle string) (snapshot, error) {
	s, err := d.snapshots.get(idIn(handle))
	if err == nil && s.Handle != handle {
		return s, status.Errorf(codes.NotFound, "there is no snapshot %s", handle)
	}
	return s, err
}

func (d *driver) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, c := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES, csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
	} {
		rpc := &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: c}}
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{Type: rpc})
	}
	return answer, nil
}

func supported(cs ...*csi.VolumeCapability) error {
	for _, c := range cs {
		if c.GetMount() == nil {
			return status.Error(codes.InvalidArgument, "volumes are mounted, there are no block volumes")
		}
	}
	if len(cs) == 0 {
		return status.Error(codes.InvalidArgument, "the volume's capabilities are missing")
	}
	return nil
}

func (d *driver) ValidateVolumeCapabilities(
	_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	c, err := d.begin("volume", r.VolumeId)
	if err != nil {
		return nil, err
	}
	defer c.end()
	if len(r.VolumeCapabilities) == 0 {
		return nil, supported()
	}
	if _, err := d.volumes.get(r.VolumeId); err != nil {
		return nil, err
	}
	if err := supported(r.VolumeCapabilities...); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: status.Convert(err).Message()}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: r.VolumeContext, VolumeCapabilities: r.VolumeCapabilities, Parameters: r.Parameters,
	}}, nil
}

func (d *driver) CreateVolume(_ context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	c, err := d.begin("volume", idOf(r.Name))
	if err != nil {
		return nil, err
	}
	defer c.end()
	if err := supported(r.VolumeCapabilities...); err != nil {
		return nil, err
	}
	from := r.VolumeContentSource
	v := volume{
		ID: idOf(r.Name), Name: r.Name, Snapshot: from.GetSnapshot().GetSnapshotId(), Volume: from.GetVolume().GetVolumeId(),
	}
	switch old, err := d.volumes.get(v.ID); {
	case err == nil && old.Snapshot == v.Snapshot && old.Volume == v.Volume && within(r.CapacityRange, old.Size):
		return &csi.CreateVolumeResponse{Volume: d.describe(old)}, nil
	case err == nil:
		return nil, status.Errorf(codes.AlreadyExists, "volume %s exists with another size or source", r.Name)
	case status.Code(err) != codes.NotFound:
		return nil, err
	}
	if err := d.place(c, r.AccessibilityRequirements); err != nil {
		return nil, err
	}
	src, least, err := d.source(c, from)
	if err != nil {
		return nil, err
	}
	if v.Size = max(r.CapacityRange.GetRequiredBytes(), least); !within(r.CapacityRange, v.Size) {
		return nil, status.Errorf(codes.OutOfRange, "volume %s needs %d bytes and may have %d", r.Name, v.Size,
			r.CapacityRange.LimitBytes)
	}
	if src != "" {
		c.CloneDelay.wait("copying to " + v.ID)
	}
	if err := d.pool.create(d.pool.volume(v.ID), src); err != nil {
		return nil, err
	}
	d.journal.add(c.begin, entry{Op: "create", Volume: v.ID, Source: v.Snapshot + v.Volume})
	return &csi.CreateVolumeResponse{Volume: d.describe(v)}, d.volumes.put(v.ID, v)
}

func within(r *csi.CapacityRange, size int64) bool {
	return size >= r.GetRequiredBytes() && (r.GetLimitBytes() == 0 || size <= r.GetLimitBytes())
}

// place checks that a volume may lie on this node. ResourceExhausted makes the provisioner look for another.
func (d *driver) place(c call, t *csi.TopologyRequirement) error {
	wanted := append(t.GetPreferred(), t.GetRequisite()...)
	if len(wanted) == 0 {
		return nil
	}
	if first := wanted[0].Segments[d.topologyKey()]; first != "" && first == c.ExhaustedOnNode {
		return status.Errorf(codes.ResourceExhausted, "node %s has no room for another volume", first)
	}
	for _, t := range wanted {
		if t.Segments[d.topologyKey()] == d.node {
			return nil
		}
	}
	return status.Errorf(codes.ResourceExhausted, "volumes lie on node %s only", d.node)
}

// source finds the subvolume that a new volume is a copy of, and the size that it has at least.
func (d *driver) source(c call, from *csi.VolumeContentSource) (path string, least int64, err error) {
	switch {
	case from == nil:
		return "", 0, nil
	case from.GetSnapshot() != nil:
		s, err := d.snapshot(from.GetSnapshot().SnapshotId)
		if err == nil && c.NotRestorable {
			err = status.Errorf(codes.Internal, "the data of snapshot %s cannot be read", s.Handle)
		} else if err == nil && !s.ready(c.control) {
			err = status.Errorf(codes.FailedPrecondition, "snapshot %s is not ready yet", s.Handle)
		}
		return d.pool.snapshot(s.ID), s.Size, err
	default:
		v, err := d.volumes.get(from.GetVolume().GetVolumeId())
		if err == nil && c.NoCloneWhilePublished && d.pool.published(v.ID) {
			err = status.Errorf(codes.FailedPrecondition, "volume %s is in use and cannot be cloned", v.ID)
		}
		return d.pool.volume(v.ID), v.Size, err
	}
}

func (d *driver) describe(v volume) *csi.Volume {
	answer := &csi.Volume{VolumeId: v.ID, CapacityBytes: v.Size, AccessibleTopology: []*csi.Topology{d.topology()}}
	if v.Snapshot != "" {
		s := &csi.VolumeContentSource_SnapshotSource{SnapshotId: v.Snapshot}
		answer.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: s}}
	} else if v.Volume != "" {
		s := &csi.VolumeContentSource_VolumeSource{VolumeId: v.Volume}
		answer.ContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: s}}
	}
	return answer
}

func (d *driver) DeleteVolume(_ context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	c, err := d.begin("volume", r.VolumeId)
	if err != nil {
		return nil, err
	}
	defer c.end()
	v, err := d.volumes.get(r.VolumeId)
	if status.Code(err) == codes.NotFound {
		return &csi.DeleteVolumeResponse{}, nil
	} else if err != nil {
		return nil, err
	}
	if d.pool.published(v.ID) {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is in use", v.ID)
	}
	c.SlowDelete.wait("deleting " + v.ID)
	snapshots, err := d.snapshots.all()
	if err != nil {
		return nil, err
	}
	for _, s := range snapshots {
		if s.Volume == v.ID && s.Handle != s.ID { // it lives in this volume
			if err := d.drop(c, s); err != nil {
				return nil, err
			}
		}
	}
	// The metadata goes last: a retry finds what a kill left over.
	if err := d.pool.remove(d.pool.volume(v.ID)); err != nil {
		return nil, err
	}
	d.journal.add(c.begin, entry{Op: "delete", Volume: v.ID})
	return &csi.DeleteVolumeResponse{}, d.volumes.remove(v.ID)
}

func (d *driver) CreateSnapshot(_ context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	c, err := d.begin("snapshot", idOf(r.Name))
	if err != nil {
		return nil, err
	}
	defer c.end()
	if r.SourceVolumeId == "" {
		return nil, status.Errorf(codes.InvalidArgument, "the source of snapshot %s is missing", r.Name)
	}
	switch old, err := d.snapshots.get(idOf(r.Name)); {
	case err == nil && old.Volume == r.SourceVolumeId:
		return &csi.CreateSnapshotResponse{Snapshot: old.describe(c.control)}, nil
	case err == nil:
		return nil, status.Errorf(codes.AlreadyExists, "snapshot %s exists with another source", r.Name)
	case status.Code(err) != codes.NotFound:
		return nil, err
	}
	v, err := d.volumes.get(r.SourceVolumeId)
	if err != nil {
		return nil, err
	}
	failed, _ := d.failures.LoadOrStore(c.changed.UnixNano(), new(atomic.Int64))
	if failed.(*atomic.Int64).Add(1) <= c.FailCreateSnapshot {
		return nil, status.Errorf(codes.Internal, "snapshot %s fails because control.json asks for it", r.Name)
	}
	c.CutDelay.wait("cutting " + idOf(r.Name))
	s := snapshot{ID: idOf(r.Name), Name: r.Name, Volume: v.ID, Size: v.Size + c.RestoreSizeExtra, Cut: time.Now()}
	if err := d.pool.create(d.pool.snapshot(s.ID), d.pool.volume(v.ID), "-r"); err != nil {
		return nil, err
	}
	s.Ready = s.Cut.Add(c.ReadyDelay.Duration)
	if s.Handle = s.ID; c.InVolume {
		s.Handle = "snap://" + v.ID + "/" + s.ID
	}
	// The journal goes first: a cut that a kill left without metadata is made again, and its last line counts.
	d.journal.add(c.begin, entry{Op: "cut", Volume: v.ID, Snapshot: s.Handle, Cut: s.Cut.UnixNano()})
	return &csi.CreateSnapshotResponse{Snapshot: s.describe(c.control)}, d.snapshots.put(s.ID, s)
}

func (s snapshot) ready(c control) bool { return !c.NeverReady && time.Now().After(s.Ready) }

func (s snapshot) describe(c control) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: s.Handle, SourceVolumeId: s.Volume, SizeBytes: s.Size,
		CreationTime: timestamppb.New(s.Cut), ReadyToUse: s.ready(c),
	}
}

func (d *driver) DeleteSnapshot(_ context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	c, err := d.begin("snapshot", idIn(r.SnapshotId))
	if err != nil {
		return nil, err
	}
	defer c.end()
	s, err := d.snapshot(r.SnapshotId)
	if status.Code(err) == codes.NotFound {
		return &csi.DeleteSnapshotResponse{}, nil
	} else if err != nil {
		return nil, err
	}
	volumes, err := d.volumes.all()
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		if c.RefuseDeleteWithClones && v.Snapshot == s.Handle {
			return nil, status.Errorf(codes.FailedPrecondition, "volume %s was restored from snapshot %s and still needs it",
				v.ID, s.Handle)
		}
	}
	c.SlowDelete.wait("deleting " + s.ID)
	return &csi.DeleteSnapshotResponse{}, d.drop(c, s)
}

func (d *driver) drop(c call, s snapshot) error {
	if err := d.pool.remove(d.pool.snapshot(s.ID)); err != nil {
		return err
	}
	d.journal.add(c.begin, entry{Op: "delete", Volume: s.Volume, Snapshot: s.Handle})
	return d.snapshots.remove(s.ID)
}

func (d *driver) ListVolumes(_ context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	all, err := d.volumes.all()
	if err != nil {
		return nil, err
	}
	some, next, err := page(all, r.StartingToken, r.MaxEntries)
	answer := &csi.ListVolumesResponse{NextToken: next}
	for _, v := range some {
		answer.Entries = append(answer.Entries, &csi.ListVolumesResponse_Entry{Volume: d.describe(v)})
	}
	return answer, err
}

func (d *driver) ListSnapshots(_ context.Context, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	c, err := readControl(filepath.Join(d.state, "control.json"))
	if err != nil {
		return nil, err
	}
	all, err := d.snapshots.all()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s snapshot) bool {
		return r.SnapshotId != "" && r.SnapshotId != s.Handle || r.SourceVolumeId != "" && r.SourceVolumeId != s.Volume
	})
	some, next, err := page(all, r.StartingToken, r.MaxEntries)
	answer := &csi.ListSnapshotsResponse{NextToken: next}
	for _, s := range some {
		answer.Entries = append(answer.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: s.describe(c)})
	}
	return answer, err
}

// page cuts a list. A token is the position of the entry that comes next.
func page[T any](all []T, token string, most int32) (some []T, next string, err error) {
	at := 0
	if token != "" {
		if at, err = strconv.Atoi(token); err != nil || at < 0 || at > len(all) {
			return nil, "", status.Errorf(codes.Aborted, "%q is no token of this list", token)
		}
	}
	if some = all[at:]; most > 0 && int(most) < len(some) {
		return some[:most], strconv.Itoa(at + int(most)), nil
	}
	return some, "", nil
}
