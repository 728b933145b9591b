//! What is plugged in and mounted.

use super::Host;
use crate::drift::Drift;
use crate::value::{Row, row};

#[expect(clippy::too_many_arguments, reason = "the columns of one row")]
fn usb(
    address: i64,
    port: i64,
    vendor: &str,
    vendor_id: &str,
    model: &str,
    model_id: &str,
    serial: &str,
    removable: i64,
) -> Row {
    row! {
        "usb_address" => address, "usb_port" => port, "vendor" => vendor, "vendor_id" => vendor_id, "version" => "1.00",
        "model" => model, "model_id" => model_id, "serial" => serial, "class" => "0", "subclass" => "0", "protocol" => "0",
        "removable" => removable,
    }
}

pub(super) fn usb_devices(host: &Host<'_>) -> Vec<Row> {
    let mut rows = vec![
        usb(
            1,
            1,
            "Linux Foundation",
            "1d6b",
            "3.0 root hub",
            "0003",
            "0000:00:14.0",
            -1,
        ),
        usb(
            2,
            4,
            "Logitech, Inc.",
            "046d",
            "Unifying Receiver",
            "c52b",
            "",
            0,
        ),
    ];
    if host.has(Drift::Usb) {
        rows.push(usb(
            9,
            2,
            "SanDisk Corp.",
            "0781",
            "Ultra Fit",
            "5583",
            &stick_serial(host),
            1,
        ));
    }
    rows
}

fn stick_serial(host: &Host<'_>) -> String {
    format!("4C5300012{:09}", host.constant(4) % 1_000_000_000)
}

pub(super) fn logical_drives(host: &Host<'_>) -> Vec<Row> {
    let drive = |id: &str, kind: &str, system: &str, size: i64, boot: i64| {
        row! {
            "device_id" => id, "type" => kind, "description" => kind, "free_space" => size / 2, "size" => size,
            "file_system" => system, "boot_partition" => boot,
        }
    };
    let mut rows = vec![drive("C:", "Local Fixed Disk", "NTFS", 510_770_802_688, 1)];
    if host.has(Drift::Usb) {
        rows.push(drive("E:", "Removable Disk", "exFAT", 61_505_273_856, 0));
    }
    rows
}

pub(super) fn disk_info(host: &Host<'_>) -> Vec<Row> {
    let disk = |index: i64, kind: &str, model: &str, serial: String| {
        row! {
            "partitions" => 3 - 2 * index, "disk_index" => index, "type" => kind, "id" => format!("\\\\.\\PHYSICALDRIVE{index}"),
            "pnp_device_id" => "", "disk_size" => 512_110_190_592_i64, "manufacturer" => "(Standard disk drives)",
            "hardware_model" => model, "name" => format!("\\\\.\\PHYSICALDRIVE{index}"), "serial" => serial, "description" => "Disk drive",
        }
    };
    let mut rows = vec![disk(
        0,
        "SCSI",
        "SAMSUNG MZVL2512HCJQ",
        format!("S64{:08}", host.constant(5) % 100_000_000),
    )];
    if host.has(Drift::Usb) {
        rows.push(disk(
            1,
            "USB",
            "SanDisk Ultra Fit USB Device",
            stick_serial(host),
        ));
    }
    rows
}

pub(super) fn mounts(host: &Host<'_>) -> Vec<Row> {
    let mount = |device: &str, path: &str, kind: &str| {
        row! {
            "device" => device, "device_alias" => device, "path" => path, "type" => kind, "blocks_size" => 4096_i64,
            "blocks" => 124_000_000_i64, "blocks_free" => 90_000_000_i64, "blocks_available" => 84_000_000_i64,
            "inodes" => 31_000_000_i64, "inodes_free" => 30_000_000_i64, "flags" => "rw,relatime",
        }
    };
    let mut rows = vec![mount("/dev/nvme0n1p2", "/", "ext4")];
    if host.has(Drift::Usb) {
        rows.push(mount("/dev/sdb1", "/media/usb", "exfat"));
    }
    rows
}

pub(super) fn kernel_modules() -> Vec<Row> {
    ["ext4", "nf_tables", "overlay", "usb_storage", "xfs"]
        .map(|name| {
            row! {"name" => name, "size" => 40_960_i64, "used_by" => "-", "status" => "Live", "address" => "0x0000000000000000"}
        })
        .to_vec()
}
