"""Writes an OCI archive of one layer, for images that are a static binary or two. Same input, same bytes."""

import argparse
import hashlib
import io
import json
import tarfile


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ref", required=True, help="the image's name and tag")
    parser.add_argument("--entrypoint", required=True, nargs="+")
    parser.add_argument("--user", default="0:0", help="UID:GID")
    parser.add_argument("--file", action="append", default=[], metavar="SOURCE=PATH", help="an executable file")
    parser.add_argument("--link", action="append", default=[], metavar="TARGET=PATH", help="symbolic links, by comma")
    parser.add_argument("--open-dir", action="append", default=["tmp"], metavar="PATH", help="a folder open to all")
    parser.add_argument("out")
    return parser.parse_args()


class Layer:
    """A tar in memory whose folders come by themselves."""

    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)
        self.folders = {""}

    def folder(self, path, mode=0o755):
        path = path.strip("/")
        if path in self.folders:
            return
        self.folder(path.rpartition("/")[0])
        self.folders.add(path)
        self.entry(path, mode, type=tarfile.DIRTYPE)

    def file(self, path, content, mode):
        self.folder(path.strip("/").rpartition("/")[0])
        self.entry(path, mode, content, size=len(content))

    def link(self, path, target):
        self.folder(path.strip("/").rpartition("/")[0])
        self.entry(path, 0o777, type=tarfile.SYMTYPE, linkname=target)

    def entry(self, path, mode, content=b"", **fields):
        info = tarfile.TarInfo(path.strip("/"))
        info.mode = mode
        for field, value in fields.items():
            setattr(info, field, value)
        self.tar.addfile(info, io.BytesIO(content))

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()


def layer(args):
    made = Layer()
    for path in args.open_dir:
        made.folder(path, 0o1777)
    made.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n", 0o644)
    made.file("etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644)
    for pair in args.file:
        source, path = pair.split("=")
        with open(source, "rb") as file:
            made.file(path, file.read(), 0o755)
    for pair in args.link:
        target, paths = pair.split("=")
        for path in paths.split(","):
            made.link(path, target)
    return made.bytes()


def main():
    args = arguments()
    blobs = {}

    def blob(media_type, content):
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        media_type = f"application/vnd.oci.image.{media_type}"
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def document(media_type, content):
        return blob(media_type, json.dumps(content, sort_keys=True).encode())

    platform = {"architecture": "amd64", "os": "linux"}
    content = blob("layer.v1.tar", layer(args))
    config = document("config.v1+json", {
        **platform,
        "config": {"Entrypoint": args.entrypoint, "Env": ["PATH=/bin"], "User": args.user, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [content["digest"]]},
    })
    manifest = document("manifest.v1+json", {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [content],
    })
    names = {"io.containerd.image.name": args.ref, "org.opencontainers.image.ref.name": args.ref.rpartition(":")[2]}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**manifest, "platform": platform, "annotations": names}],
    }

    with tarfile.open(args.out, "w", format=tarfile.PAX_FORMAT) as out:
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
        files |= {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))


main()
