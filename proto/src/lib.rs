//! Countersign's wire types, generated from `proto/countersign/v1`. Nothing else lives here:
//! what the types mean to the product is in `countersign-shared` and above.

mod redacted;

/// Package `countersign.v1`: messages, clients and servers.
pub mod v1 {
    #![allow(missing_docs, unreachable_pub)]
    #![allow(clippy::all)]
    tonic::include_proto!("countersign.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of the package and of what it imports, for
/// server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/countersign_descriptor.bin"));
