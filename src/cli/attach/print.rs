//! What gives an attached volume to a guest: a command line of QEMU, elements of libvirt's XML.
//!
//! Both have what vhost-user cannot do without: memory that the guest shares with the daemon. And both have the guest
//! connect again when the connection breaks, so that a restart of the daemon is a pause.

use crate::api::model::Attachment;

/// The binary that runs guests of this machine's kind.
#[cfg(target_arch = "x86_64")]
const QEMU: &str = "qemu-system-x86_64";
#[cfg(not(target_arch = "x86_64"))]
const QEMU: &str = "qemu-system-aarch64";

/// A command line that starts a guest with the disk, and with `memory` bytes.
pub(super) fn qemu(attachment: &Attachment, path: &str, memory: u64) -> String {
    // An id of QEMU begins with a letter, and has no other characters than a volume's name.
    let id = format!("sarsen-{}", attachment.volume);
    // In an option's value, a comma is written twice. QEMU counts memory in MiB where no unit is said.
    let socket = format!(
        "socket,id={id},path={},reconnect=1",
        path.replace(',', ",,")
    );
    let disk = format!(
        "vhost-user-blk-pci,chardev={id},num-queues={}",
        attachment.queues
    );
    let shared = format!("memory-backend-memfd,id=sarsen-memory,size={memory}B,share=on");
    let memory = format!("{memory}B");
    let arguments = [
        ("-machine", "q35,accel=kvm:tcg,memory-backend=sarsen-memory"),
        ("-m", &memory),
        ("-object", &shared),
        ("-chardev", &socket),
        ("-device", &disk),
    ];
    let arguments = arguments.map(|(name, value)| format!("{name} {}", quoted(value)));
    format!("{QEMU} {}", arguments.join(" \\\n  "))
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:@%+".contains(c);
    match text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// What goes into a domain: the first element below `<domain>`, the second below `<devices>`.
pub(super) fn libvirt(attachment: &Attachment, path: &str) -> String {
    let (queues, path) = (attachment.queues, escaped(path));
    format!(
        "<memoryBacking>
  <source type='memfd'/>
  <access mode='shared'/>
</memoryBacking>
<disk type='vhostuser' device='disk'>
  <driver name='qemu' type='raw' queues='{queues}'/>
  <source type='unix' path='{path}'>
    <reconnect enabled='yes' timeout='1'/>
  </source>
  <target dev='vda' bus='virtio'/>
</disk>"
    )
}

/// A text as the value of an attribute.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&apos;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::{AttachmentState, FrontEnd};

    fn attachment() -> Attachment {
        Attachment {
            key: 1,
            volume: "vm1".into(),
            node: "a".into(),
            front_end: FrontEnd::VhostUser,
            queues: 4,
            socket: None,
            path: None,
            incoming: false,
            state: AttachmentState::Listening,
            reason: String::new(),
        }
    }

    #[test]
    fn qemu_is_told_of_shared_memory_a_socket_that_reconnects_and_the_queues() {
        let line = qemu(&attachment(), "/run/vm1.sock", 2 << 30);
        let expected = "-machine q35,accel=kvm:tcg,memory-backend=sarsen-memory \\\n  \
                        -m 2147483648B \\\n  \
                        -object memory-backend-memfd,id=sarsen-memory,size=2147483648B,share=on \\\n  \
                        -chardev socket,id=sarsen-vm1,path=/run/vm1.sock,reconnect=1 \\\n  \
                        -device vhost-user-blk-pci,chardev=sarsen-vm1,num-queues=4";
        assert_eq!(line, format!("{QEMU} {expected}"));
    }

    #[test]
    fn an_odd_path_stays_one_value() {
        let line = qemu(&attachment(), "/run/a b,c'd", 1 << 30);
        let expected = r"-chardev 'socket,id=sarsen-vm1,path=/run/a b,,c'\''d,reconnect=1'";
        assert!(line.contains(expected), "{line}");
        let xml = libvirt(&attachment(), "/run/<a>&'b\"");
        assert!(
            xml.contains("path='/run/&lt;a&gt;&amp;&apos;b&quot;'"),
            "{xml}"
        );
    }

    #[test]
    fn libvirt_is_told_of_shared_memory_a_socket_that_reconnects_and_the_queues() {
        let xml = libvirt(&attachment(), "/run/vm1.sock");
        for part in [
            "<access mode='shared'/>",
            "<disk type='vhostuser' device='disk'>",
            "queues='4'",
            "<source type='unix' path='/run/vm1.sock'>",
            "<reconnect enabled='yes' timeout='1'/>",
        ] {
            assert!(xml.contains(part), "{part} is not in {xml}");
        }
    }
}
