package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.name, VendorVersion: "1"}, nil
}

func (d *driver) GetPluginCapabilities(
	context.Context, *csi.GetPluginCapabilitiesRequest,
) (*csi.GetPluginCapabilitiesResponse, error) {
	answer := &csi.GetPluginCapabilitiesResponse{}
	for _, c := range []csi.PluginCapability_Service_Type{
		csi.PluginCapability_Service_CONTROLLER_SERVICE, csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS,
	} {
		service := &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: c}}
		answer.Capabilities = append(answer.Capabilities, &csi.PluginCapability{Type: service})
	}
	return answer, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}

// GetInfo tells the kubelet where the driver serves.
func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: d.name, Endpoint: d.socket, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (d *driver) NotifyRegistrationStatus(
	_ context.Context, r *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	if !r.PluginRegistered {
		log.Printf("the kubelet refused %s: %s", d.name, r.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *driver) topologyKey() string { return "topology." + d.name + "/node" }

func (d *driver) topology() *csi.Topology {
	return &csi.Topology{Segments: map[string]string{d.topologyKey(): d.node}}
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node, AccessibleTopology: d.topology()}, nil
}

func (d *driver) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

func (d *driver) NodePublishVolume(
	_ context.Context, r *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	c, err := d.begin("volume", r.VolumeId)
	if err != nil {
		return nil, err
	}
	defer c.end()
	if r.TargetPath == "" || r.VolumeCapability == nil {
		return nil, status.Error(codes.InvalidArgument, "the target path or the volume capability is missing")
	}
	if err := supported(r.VolumeCapability); err != nil {
		return nil, err
	}
	v, err := d.volumes.get(r.VolumeId)
	if err != nil {
		return nil, err
	}
	if mountsOn(r.TargetPath) > 0 {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	mode := r.VolumeCapability.GetAccessMode().GetMode().String() // two of them end in READER_ONLY
	if err := bind(d.pool.volume(v.ID), r.TargetPath, r.Readonly || strings.HasSuffix(mode, "READER_ONLY")); err != nil {
		return nil, err
	}
	d.journal.add(c.begin, entry{Op: "publish", Volume: v.ID, Target: r.TargetPath})
	return &csi.NodePublishVolumeResponse{}, nil
}

// mountsOn counts the mounts on a path, which may lie on each other.
func mountsOn(path string) (n int) {
	for _, m := range mounts() {
		if m.target == path {
			n++
		}
	}
	return n
}

func bind(src, dst string, readonly bool) error {
	if err := os.MkdirAll(dst, 0o750); err != nil {
		return err
	}
	err := syscall.Mount(src, dst, "", syscall.MS_BIND, "")
	if err == nil && readonly { // a bind mount takes its flags in a second step only
		if err = syscall.Mount("", dst, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			_ = syscall.Unmount(dst, 0)
		}
	}
	if err != nil {
		return fmt.Errorf("bind %s to %s: %w", src, dst, err)
	}
	return nil
}

func (d *driver) NodeUnpublishVolume(
	_ context.Context, r *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	c, err := d.begin("volume", r.VolumeId)
	if err != nil {
		return nil, err
	}
	defer c.end()
	if r.TargetPath == "" {
		return nil, status.Error(codes.InvalidArgument, "the target path is missing")
	}
	for range mountsOn(r.TargetPath) {
		if err := syscall.Unmount(r.TargetPath, 0); err != nil {
			return nil, fmt.Errorf("unmount %s: %w", r.TargetPath, err)
		}
		d.journal.add(c.begin, entry{Op: "unpublish", Volume: r.VolumeId, Target: r.TargetPath})
	}
	if err := os.Remove(r.TargetPath); err != nil && !absent(err) {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
