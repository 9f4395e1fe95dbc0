// Command csi is a CSI driver for test clusters of one node. Volumes are btrfs subvolumes in a
// loop-mounted image file, so that a snapshot is an atomic cut; a control file makes it slow or faulty.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// driver serves all CSI services and, on a socket of its own, the kubelet's plugin registration.
type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer

	name, node, socket, state string

	pool      pool
	volumes   shelf[volume]
	snapshots shelf[snapshot]
	journal   journal
	busy      sync.Map // the objects of the calls under way
	failures  sync.Map // from the time of a control file to the *atomic.Int64 of its failed cuts
}

func main() {
	host, _ := os.Hostname()
	name := flag.String("name", "sim.csi.sts-backup.io", "driver `NAME`; the topology key is topology.NAME/node")
	endpoint := flag.String("endpoint", "unix:///tmp/csi.sock", "unix `URL` of the socket that serves CSI")
	socket := flag.String("registration", "", "`PATH` of the socket in the kubelet's plugins_registry (default none)")
	node := flag.String("node", host, "`NAME` of the Kubernetes node")
	state := flag.String("state", "", "`DIR` of the image, the metadata, journal.jsonl and control.json (required)")
	size := flag.Int64("size", 16<<30, "`BYTES` of the sparse btrfs image when it is first made")
	flag.Parse()
	dir, err := filepath.Abs(*state)
	if err != nil || *state == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	d := &driver{
		name: *name, node: *node, socket: strings.TrimPrefix(*endpoint, "unix://"), state: dir,
		pool:      pool(filepath.Join(dir, "pool")),
		volumes:   shelf[volume]{"volume", filepath.Join(dir, "volumes")},
		snapshots: shelf[snapshot]{"snapshot", filepath.Join(dir, "snapshots")},
		journal:   journal{path: filepath.Join(dir, "journal.jsonl")},
	}
	if err := d.run(*socket, *size); err != nil {
		log.Fatal(err)
	}
}

// run serves until SIGTERM or SIGINT. That cuts off the calls under way as a crash does: their retry finds
// no metadata and begins anew. Published volumes stay mounted for their pods.
func (d *driver) run(socket string, size int64) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := command("sh", "-c", prepare, "prepare", d.state, fmt.Sprint(size)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.pool.unmount()) }()

	failed := make(chan error, 2)
	serve := func(path string, register func(*grpc.Server)) {
		_ = os.Remove(path) // a killed driver leaves its socket behind
		s := grpc.NewServer(grpc.UnaryInterceptor(observe))
		register(s)
		context.AfterFunc(ctx, s.Stop)
		l, err := net.Listen("unix", path)
		if err != nil {
			failed <- err
			return
		}
		go func() { failed <- s.Serve(l) }()
	}
	serve(d.socket, func(s *grpc.Server) {
		csi.RegisterIdentityServer(s, d)
		csi.RegisterControllerServer(s, d)
		csi.RegisterNodeServer(s, d)
	})
	if socket != "" { // last, because the kubelet then calls the other one at once
		serve(socket, func(s *grpc.Server) { registration.RegisterRegistrationServer(s, d) })
	}
	log.Printf("%s serves %s on node %s", d.name, d.socket, d.node)
	return <-failed // nil after Stop
}

// observe logs each call and gives an error without a status the code Internal.
func observe(ctx context.Context, r any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	begin := time.Now()
	answer, err := next(ctx, r)
	if err != nil && status.Code(err) == codes.Unknown {
		err = status.Error(codes.Internal, err.Error())
	}
	if info.FullMethod != csi.Identity_Probe_FullMethodName {
		log.Printf("%s (%v) took %v: %v", filepath.Base(info.FullMethod), r, time.Since(begin).Round(time.Millisecond), err)
	}
	return answer, err
}
